"""Runs a program on an island: inside.py ROUTE... -- PROGRAM ARGUMENT...

Started by `unshare --net` (Debian packages `util-linux`, `python3`) in a network namespace that has nothing but a loopback
device. Each ROUTE is tcp:ADDRESS:PORT=SOCKET or udp:ADDRESS:PORT=SOCKET: what goes to that address, inside, comes out of the
Unix socket, outside, one connection a connection (TCP) or one a source address (UDP, each datagram behind two bytes of its
length, big end first). File names mean the same inside and outside; addresses do not. tests/common/island.rs is the other end.
"""
import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
        name = struct.pack("16sh", b"lo", 0).ljust(40, b"\0")
        (flags,) = struct.unpack_from("h", fcntl.ioctl(it, 0x8913, name), 16)  # SIOCGIFFLAGS
        fcntl.ioctl(it, 0x8914, struct.pack("16sh", b"lo", flags | 1).ljust(40, b"\0"))  # SIOCSIFFLAGS, IFF_UP


def listener(route):
    kind, rest = route.split(":", 1)
    address, path = rest.split("=", 1)
    host, port = address.rsplit(":", 1)
    it = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    if kind == "tcp":
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    it.bind((host, int(port)))
    if kind == "tcp":
        it.listen(64)
    it.setblocking(False)
    return kind, it, path


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # One direction that breaks takes the other with it, as a reset does.
        writer.transport.abort()


async def tcp(path, near_in, near_out):
    try:
        far_in, far_out = await asyncio.open_unix_connection(path)
    except OSError:
        near_out.transport.abort()
        return
    await asyncio.gather(pump(near_in, far_out), pump(far_in, near_out))
    near_out.close()
    far_out.close()


async def udp(it, path):
    loop = asyncio.get_running_loop()
    boats = {}

    async def homewards(source, reader):
        try:
            while True:
                (size,) = struct.unpack(">H", await reader.readexactly(2))
                await loop.sock_sendto(it, await reader.readexactly(size), source)
        except (OSError, asyncio.IncompleteReadError):
            boats.pop(source, None)

    while True:
        datagram, source = await loop.sock_recvfrom(it, 65536)
        if source not in boats:
            try:
                reader, boats[source] = await asyncio.open_unix_connection(path)
            except OSError:
                continue
            asyncio.ensure_future(homewards(source, reader))
        boats[source].write(struct.pack(">H", len(datagram)) + datagram)


async def ferries(listeners):
    for kind, it, path in listeners:
        if kind == "tcp":
            await asyncio.start_server(lambda r, w, path=path: tcp(path, r, w), sock=it)
        else:
            asyncio.ensure_future(udp(it, path))
    await asyncio.Event().wait()


def main():
    split = sys.argv.index("--")
    loopback_up()
    listeners = [listener(route) for route in sys.argv[1:split]]
    program = os.getpid()
    if os.fork() == 0:
        # Ends with the program.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != program:
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        asyncio.run(ferries(listeners))
    for _, it, _ in listeners:
        it.close()
    os.execvp(sys.argv[split + 1], sys.argv[split + 1:])


main()
