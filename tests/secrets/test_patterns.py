"""Secrets do not leave the kernel in a prompt."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.context.summaries.summary import summarize
from kimi_magic.secrets.keys import LEAK, Key
from kimi_magic.secrets.patterns import holds_key, mask_accounts, without_key
from kimi_magic.secrets.redact import Redactor

MIXED = "aB3dE5gH7j" * 8
HEX = "0123456789abcdef" * 4
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK+/=\n-----END RSA PRIVATE KEY-----"


def mask(text: str, known: Mapping[str, str] | None = None) -> tuple[str, tuple[str, ...]]:
    redactor = Redactor([Key(v, name) for name, v in (known or {}).items()], shapes=True)
    return redactor.text(text), redactor.found


SHAPES = [
    (f"sk-proj-{MIXED[:48]}", "an API key (sk-…)"),
    (f"sk-ant-api03-{MIXED[:60]}", "an API key (sk-…)"),
    (f"sk-or-v1-{HEX}", "an API key (sk-…)"),
    (f"sk-{HEX[:32]}", "an API key (sk-…)"),
    (f"nvapi-{MIXED[:64]}", "an NVIDIA key (nvapi-…)"),
    (f"ghp_{MIXED[:36]}", "a GitHub token (ghp_…)"),
    (f"github_pat_{MIXED}", "a GitHub token (github_pat_…)"),
    (f"glpat-{MIXED[:20]}", "a GitLab token (glpat-…)"),
    (f"hf_{MIXED[:34]}", "a Hugging Face token (hf_…)"),
    ("AKIAIOSFODNN7EXAMPLE", "an AWS key id (AKIA…)"),
    ("xoxb-123456789012-abcdef", "a Slack token (xox…)"),
    (f"AIza{MIXED[:35]}", "a Google key (AIza…)"),
    (f"sk_live_{MIXED[:24]}", "a Stripe key (sk_live_…)"),
    (f"gsk_{MIXED[:52]}", "a Groq key (gsk_…)"),
    (f"npm_{MIXED[:36]}", "an npm token (npm_…)"),
    (f"pypi-{MIXED}", "a PyPI token (pypi-…)"),
    (f"SG.{MIXED[:22]}.{MIXED[:43]}", "a SendGrid key (SG.…)"),
    (f"dapi{HEX[:32]}", "a Databricks token (dapi…)"),
    (f"hvs.{MIXED[:30]}", "a Vault token (hvs.…)"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP", "a JSON Web Token (eyJ…)"),
]


@pytest.mark.parametrize(("secret", "words"), SHAPES, ids=[words for _, words in SHAPES])
@pytest.mark.parametrize(
    "around", ["{}", 'key = "{}"', "token={}\nnext", "('{}',)", "a\\n{}\\n", "x: {}, y", "[{}]"]
)
def test_the_shapes_of_well_known_keys(secret: str, words: str, around: str) -> None:
    assert mask(around.replace("{}", secret)) == (around.replace("{}", "[masked]"), (words,))


IN_CONTEXT = [
    (PEM, "-----BEGIN RSA PRIVATE KEY-----[masked]-----END RSA PRIVATE KEY-----", "a private key"),
    (repr(PEM), "'-----BEGIN RSA PRIVATE KEY-----[masked]-----END RSA PRIVATE KEY-----'", None),
    (
        f"-----BEGIN PRIVATE KEY-----\n{MIXED[:64]}\n{MIXED[:40]}\nand the next sentence",
        "-----BEGIN PRIVATE KEY-----[masked]\nand the next sentence",
        "a private key",
    ),
    ("postgresql+psycopg://me:hunter2!@db:5432/x", None, "the password in a URL"),
    ("redis://:hunter2!@cache", None, "the password in a URL"),
    ("redis://:$hunter2@cache", "redis://:[masked]@cache", "the password in a URL"),
    ("https://x.org/a?user=me&password=hunter2!&n=1", None, "a secret in a URL"),
    ("https://x.org/a?access_token=hunter2!", None, "a secret in a URL"),
    ("jdbc:sqlserver://h;PASSWORD=hunter2!;x=1", None, "a secret in a URL"),
    (f"Authorization: Bearer {MIXED[:30]}", "Authorization: Bearer [masked]", "a bearer token"),
    (f"aws_secret_access_key = {MIXED[:40]}", None, "an AWS secret key"),
    (f'{{"AWS_SECRET_ACCESS_KEY": "{MIXED[:40]}"}}', None, "an AWS secret key"),
]


@pytest.mark.parametrize(("text", "masked", "words"), IN_CONTEXT)
def test_secrets_that_their_context_tells(text: str, masked: str | None, words: str | None) -> None:
    expected = masked or text.replace("hunter2!", "[masked]").replace(MIXED[:40], "[masked]")
    assert mask(text) == (expected, (words or "a private key",))


HARMLESS = [
    "columns: token (str), primary_key (int64), api_key (str), password (str), secret (str)",
    "password = get_password(); api_key=os.environ['OPENAI_API_KEY']",
    f"task-{MIXED[:48]} and disk-{MIXED[:48]}",
    "sk-container-id-1 sk-estimator-doc-link-is-a-long-class-name",
    "http://localhost:8080/path@host and scheme://host:80",
    "f'postgres://{user}:{password}@{host}' or redis://:$PASSWORD@h or x://u:<password>@h",
    "https://x.org/?token={token}&password=***",
    f"sha256 {HEX}, id 550e8400-e29b-41d4-a716-446655440000, AKIA",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "The bearer of bad news; Bearer [token]",
    "sk-… nvapi-… ghp_…",
    pytest.param("sk-" * 50_000, id="beginnings without end"),
]


@pytest.mark.parametrize("text", HARMLESS)
def test_names_and_other_words_are_never_masked(text: str) -> None:
    assert mask(text) == (text, ())


@pytest.mark.parametrize("secret", [secret for secret, _ in SHAPES])
def test_a_key_in_the_place_of_a_name_is_refused_and_not_repeated(secret: str) -> None:
    for name in (secret, f"vendor/{secret}", f"https://host/v1?key={secret}"):
        assert holds_key(name)
        assert without_key(f"No endpoint is named {name!r}.", name) == (
            "No endpoint is named '[key]'."
        )


@pytest.mark.parametrize("start", ["sk-", "nvapi-", "hf_", "gsk_", "xai-", "ghp_", "Bearer "])
def test_the_beginning_of_a_key_is_enough_where_a_name_is_expected(start: str) -> None:
    cut = f"{start}{MIXED[:12]}"
    assert holds_key(cut)
    assert mask(f"It begins with {cut}") == (f"It begins with {cut}", ())


@pytest.mark.parametrize(
    "name",
    [
        "xai-grok-code-fast-1",
        "oci/xai-grok-code-fast-1",
        "hf_datasets_for_training",
        "gsk_pharmaceuticals",
        "npm_config_registry_url",
        "pplx-70b-online-chat",
        "moonshotai/kimi-k2-thinking",
        "task-0123456789abcdef",
        "http://127.0.0.1:8000/v1",
    ],
)
def test_names_that_begin_like_a_key_are_names(name: str) -> None:
    assert not holds_key(name)
    assert without_key(f"No {name}.", name) == f"No {name}."


KEY = "fake-key-0123456789abcdef"


def test_known_values_and_what_leaks_of_them() -> None:
    known = {"LAB_KEY": KEY, "OTHER": "short12", "SMALL": "eight888"}
    assert mask(f"a {KEY} b", known) == ("a [masked] b", ("the value of LAB_KEY",))
    assert mask(f"a {KEY[5:17]} b", known) == ("a [masked] b", ("the value of LAB_KEY",))
    assert mask(f"a {KEY[5:16]} b", known) == (f"a {KEY[5:16]} b", ())
    assert mask(f"{KEY[:14]} {KEY[-13:]}", known)[0] == "[masked] [masked]"
    assert mask("short12 and eight888", known) == (
        "short12 and [masked]",
        ("the value of SMALL",),
    )


def test_several_are_told_once_each() -> None:
    text = f"{KEY} {KEY} {SHAPES[4][0]} {SHAPES[5][0]} {SHAPES[5][0]}"
    assert mask(text, {"LAB_KEY": KEY}) == (
        "[masked] [masked] [masked] [masked] [masked]",
        ("the value of LAB_KEY", "an NVIDIA key (nvapi-…)", "a GitHub token (ghp_…)"),
    )


def test_a_key_that_was_cut_off_in_a_summary_is_masked() -> None:
    text = summarize({"keys": [KEY * 40] * 9}, tokens=60)
    assert KEY[:LEAK] in text
    assert KEY[:LEAK] not in mask(text, {"LAB_KEY": KEY})[0]


letters = st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="[]")
)


@given(st.data(), letters.filter(lambda t: len(t) >= LEAK), st.text(), st.text())
def test_no_twelve_characters_of_a_known_secret_remain(
    data: st.DataObject, secret: str, before: str, after: str
) -> None:
    start = data.draw(st.integers(0, len(secret) - LEAK))
    end = data.draw(st.integers(start + LEAK, len(secret)))
    text, found = mask(f"{before}{secret[start:end]}{after}{secret}", {"KEY": secret})
    assert not any(secret[i : i + LEAK] in text for i in range(len(secret) - LEAK + 1))
    assert "the value of KEY" in found


@given(st.text(), st.sampled_from([secret for secret, _ in SHAPES] + [PEM]), st.text())
def test_a_text_is_masked_once_and_what_is_around_stays(
    before: str, secret: str, after: str
) -> None:
    text, found = mask(f"{before} {secret} {after}")
    assert found
    assert mask(text) == (text, ())


@given(st.text(alphabet=st.characters(exclude_characters="-_:?=.&;")))
def test_prose_is_left_alone(text: str) -> None:
    assert mask(text) == (text, ())


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        (
            "Your account org-78cd08fac9804d20bac9a1f02fc1e6a5 / proj-a418892b55d04bbb "
            "<ak-f94zcrj6ax1111aqsyq1> request reached organization TPD rate limit",
            "Your account [account] / [account] <[account]> request reached organization TPD rate "
            "limit",
        ),
        ("organization <org-1f2e3d4c5b> exceeded", "organization <[account]> exceeded"),
        ("in organization org-aB3dE5gH7jK9mN on tokens", "in organization [account] on tokens"),
        ("Project `proj_aB3dE5` has no access", "Project `[account]` has no access"),
        ("Not found for account 'a'", "Not found for account '[account]'"),
        ("Your account <xx> is not active", "Your account <[account]> is not active"),
        ('{"user_id": "user_2aB3dE5gH7"}', '{"user_id": "[account]"}'),
        ("account 6f3e99aa-0000-1111-2222-333344445555 is closed", "account [account] is closed"),
    ],
)
def test_the_account_in_a_servers_words(said: str, masked: str) -> None:
    assert mask_accounts(said) == masked


@pytest.mark.parametrize(
    "said",
    [
        "details: <At path 'properties.a': type is not defined>",
        "request reached organization max RPM: 3, please try again after 1 seconds",
        "user_not_found, account_deactivated, org-wide; the user's 'key'; project settings",
        "model kimi-k2-thinking-0905 and user-agent",
    ],
)
def test_words_beside_an_account_stay(said: str) -> None:
    assert mask_accounts(said) == said
