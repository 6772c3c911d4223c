"""kimi_magic"""
