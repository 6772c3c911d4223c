"""The script of the live view goes to a page once, and a page without it asks for it."""

from __future__ import annotations

from kimi_magic.testing import ScriptedServer
from tests.frontends import Bench, in_a_browser

pytestmark = in_a_browser

# Sizes of the binary buffers that come with new widgets: the script is one.
COUNT = """() => {
  window.opened = [];
  kimi.kernel.iopubMessage.connect((_, { header, buffers }) => {
    if (header.msg_type !== "comm_open") return;
    opened.push((buffers ?? []).reduce((sum, buffer) => sum + buffer.byteLength, 0));
  });
}"""
FORGET = "() => { globalThis[Symbol.for('kimi_magic.scripts')] = {}; }"


def run_seen(bench: Bench, server: ScriptedServer, text: str) -> None:
    """Run a turn that lasts until the page was heard."""
    server.reply(f"{text} {'Words follow. ' * 10}", rate=10)
    bench.run("%%kimi\nWhich one?")
    bench.turn.get_by_text(text).wait_for()
    bench.turn.get_by_role("button", name="Stop").wait_for()


def test_the_script_goes_to_a_page_once(bench: Bench, scripted_server: ScriptedServer) -> None:
    bench.open()
    bench.page.evaluate(COUNT)
    for text in ("First.", "Second."):
        run_seen(bench, scripted_server, text)
        bench.wait_for_record()
    sizes = bench.page.evaluate("opened")
    assert max(sizes[:2]) > 5000, "each turn opens a layout and a widget"
    assert max(sizes[2:]) == 0


def test_a_page_without_the_script_gets_it_while_the_turn_runs(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    run_seen(bench, scripted_server, "First.")
    bench.wait_for_record()
    bench.page.evaluate(FORGET)
    run_seen(bench, scripted_server, "Second.")
    bench.wait_for_record()
    assert bench.record.get_by_text("Second.").is_visible()


def test_a_page_that_is_reloaded_asks_for_the_script(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    run_seen(bench, scripted_server, "First.")
    bench.wait_for_record()
    bench.page.on("dialog", lambda dialog: dialog.accept())
    scripted_server.reply(f"Second. {'Words follow. ' * 20}", rate=10)
    bench.run("%%kimi\nWhich one?", saved=True)
    bench.turn.get_by_text("Second.").wait_for()
    bench.turn.get_by_role("button", name="Stop").wait_for()
    bench.open()
    bench.record.get_by_text("Second.").wait_for()
    assert "Error displaying widget" not in bench.page.content()
