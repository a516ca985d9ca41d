"""The official Python client against a runtime. Prints one JSON object: what it saw.

usage: python_client.py MODE CONTRACT NOTES (URL | -- COMMAND ARG...)
MODE is legacy or auto. CONTRACT is the contract of the tool `wait`, which is edited and put back. NOTES is the file that
the tool `hang` writes to.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError


def target(arguments):
    if arguments[0] == "--":
        return StdioServerParameters(command=arguments[1], args=arguments[2:], env=dict(os.environ))
    return arguments[0]


async def pages(client):
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found.append([tool.name for tool in page.tools])
        cursor = page.next_cursor
        if cursor is None:
            return found


async def list_changed(client, mode, changed, contract):
    """The names listed after one edit, once the client was told of it."""
    before = contract.read_text()
    contract.write_text(before.replace("tool_name: wait", "tool_name: pause"))
    try:
        await asyncio.wait_for(changed.wait(), 20)
        return [name for page in await pages(client) for name in page]
    finally:
        contract.write_text(before)


async def written(notes, text):
    """Waits until the tool `hang` has written `text`."""
    async with asyncio.timeout(20):
        while not notes.exists() or notes.read_text() != text:
            await asyncio.sleep(0.01)
    return True


async def main(mode, contract, notes, server):
    changed = asyncio.Event()
    seen = {}

    async def on_message(message):
        if "list_changed" in str(getattr(message, "method", "")) or "ToolListChanged" in type(message).__name__:
            changed.set()

    async with Client(server, mode=mode, message_handler=on_message) as client:
        seen["protocol"] = client.protocol_version
        seen["pages"] = await pages(client)
        statistics = await client.call_tool("text_statistics", {"text": "One. Two three."})
        seen["text_statistics"] = statistics.structured_content
        seen["get_order"] = (await client.call_tool("get_order", {"order_id": "A-1001"})).structured_content
        seen["quote_shipping"] = (
            await client.call_tool("quote_shipping", {"weight_kg": 2, "country": "DE"})
        ).structured_content
        bad = await client.call_tool("quote_shipping", {"weight_kg": "two", "country": "DE"})
        seen["bad_arguments"] = [bad.is_error, bad.content[0].text]
        try:
            await client.call_tool("no_such_tool", {})
        except MCPError as error:
            seen["unknown_tool"] = error.error.code

        progress = []

        async def on_progress(done, total, message):
            progress.append(done)

        await client.call_tool("wait", {"seconds": 0.2}, progress_callback=on_progress)
        seen["progress"] = progress

        running = asyncio.create_task(client.call_tool("hang", {"file": str(notes)}))
        await written(notes, "started ")
        running.cancel()
        try:
            await running
        except asyncio.CancelledError:
            seen["cancelled"] = await written(notes, "started aborted ")
        after = await client.call_tool("wait", {"seconds": 0.01})
        seen["after_cancel"] = after.content[0].text

        if mode == "legacy":
            seen["after_edit"] = await list_changed(client, mode, changed, contract)
        else:
            async with client.listen(tools_list_changed=True) as events:

                async def watch():
                    async for _ in events:
                        changed.set()
                        return

                watcher = asyncio.create_task(watch())
                seen["after_edit"] = await list_changed(client, mode, changed, contract)
                await watcher
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), target(sys.argv[4:])))
