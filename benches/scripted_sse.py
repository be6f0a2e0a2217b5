"""An endpoint whose latencies are known: each answer's first event comes after 50 ms, 31 more 10 ms apart.

    python3 benches/scripted_sse.py PORT

For checking load generators, `inferno bench` among them. Needs nothing but Python 3.
"""

import asyncio
import sys

EVENTS, FIRST_S, GAP_S = 32, 0.050, 0.010
MODELS = b'{"object":"list","data":[{"id":"scripted","object":"model","created":0,"owned_by":"script"}]}'
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":32}}\n\ndata: [DONE]\n\n'


async def read_request(reader):
    """The request's first line, after its body was read."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    lengths = [int(line.split(b":")[1]) for line in head if line.startswith(b"content-length:")]
    await reader.readexactly(sum(lengths))
    return head[0]


async def stream(writer):
    chunk = lambda data: writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    clock = asyncio.get_running_loop().time
    began = clock()
    for number in range(EVENTS):
        await asyncio.sleep(began + FIRST_S + number * GAP_S - clock())
        chunk(EVENT)
        await writer.drain()
    chunk(END)
    writer.write(b"0\r\n\r\n")


async def serve(reader, writer):
    try:
        while True:
            if b"/models" in await read_request(reader):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
            else:
                await stream(writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
