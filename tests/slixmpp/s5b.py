"""Jingle SOCKS5 Bytestreams (XEP-0260) on top of slixmpp's SOCKS5 client (XEP-0065). Own server side, as slixmpp has none."""
import asyncio
import hashlib
import uuid
import xml.etree.ElementTree as ET

from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.plugins.xep_0065 import Socks5Protocol

NS = "urn:xmpp:jingle:transports:s5b:1"
PREFERENCE = {"direct": 126, "assisted": 120, "tunnel": 110, "proxy": 10}


def dst_addr(sid, requester, target):
    return hashlib.sha1(f"{sid}{requester}{target}".encode()).hexdigest()


class Dialled(Socks5Protocol):
    """slixmpp's client; the bytes after its handshake go to a queue."""

    def __init__(self, dest):
        super().__init__(dest, 0, lambda *_: None)
        self.bytes = asyncio.Queue()

    def data_received(self, data):
        if self.connected.done():
            self.bytes.put_nowait(data)
        else:
            try:
                super().data_received(data)
            except Exception as why:  # what slixmpp makes of a refusal
                if not self.connected.done():
                    self.connected.set_exception(why)
                elif self.connected.exception() is None:
                    self.bytes.put_nowait(b"")

    def connection_lost(self, exc):
        self.bytes.put_nowait(b"")
        if not self.connected.done():
            self.connected.set_exception(ConnectionError("closed in the handshake"))


class DialledStream:
    def __init__(self, protocol):
        self.protocol = protocol

    async def read(self):
        return await self.protocol.bytes.get()

    async def write(self, data):
        await self.protocol.write(data)

    def close(self):
        self.protocol.transport.close()


class ServedStream:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def read(self):
        try:
            return await self.reader.read(65536)
        except OSError:
            return b""

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    def close(self):
        self.writer.close()


async def dial(host, port, dest, limit=3):
    _, protocol = await asyncio.wait_for(
        asyncio.get_running_loop().create_connection(lambda: Dialled(dest), host, int(port)), limit)
    try:
        await asyncio.wait_for(protocol.connected, limit)
    except BaseException:
        protocol.transport.abort()
        raise
    return DialledStream(protocol)


class Candidate:
    def __init__(self, host, port, kind, local=1, jid="", cid=None, priority=None):
        self.host, self.port, self.kind, self.jid = host, int(port), kind, jid
        self.cid = cid or uuid.uuid4().hex[:8]
        self.priority = int(priority) if priority is not None else 65536 * PREFERENCE[kind] + local

    def to_xml(self):
        return ET.Element(f"{{{NS}}}candidate", {
            "cid": self.cid, "host": self.host, "port": str(self.port), "jid": str(self.jid),
            "priority": str(self.priority), "type": self.kind})

    @staticmethod
    def of(it):
        return Candidate(it.get("host"), it.get("port") or 1080, it.get("type", "direct"), jid=it.get("jid"),
                         cid=it.get("cid"), priority=it.get("priority"))


class S5b:
    """One side of one negotiation. `bad` names what it does wrong on purpose."""
    ns = NS

    def __init__(self, peer, to, initiator, sid=None, bad=()):
        self.peer, self.to, self.initiator, self.bad = peer, to, initiator, set(bad)
        self.sid = sid or uuid.uuid4().hex[:12]
        self.own, self.theirs, self.served, self.dialled = [], [], {}, None
        self.own_choice = asyncio.get_running_loop().create_future()    # a candidate of theirs, or None
        self.their_choice = asyncio.get_running_loop().create_future()  # a candidate of ours, or None
        self.activated = asyncio.get_running_loop().create_future()
        self.server, self.kind, self.served_any = None, None, asyncio.Event()

    @property
    def me(self):
        return self.peer.boundjid.full

    async def gather(self):
        if "no-candidates" in self.bad:
            return
        if "no-direct" not in self.bad:
            self.server = await asyncio.start_server(self.serve, self.peer.listen_on, 0)
            port = self.server.sockets[0].getsockname()[1]
            if "dead-direct" in self.bad:
                self.server.close()
            self.own.append(Candidate(self.peer.listen_on, port, "direct", jid=self.me))
            if "flat" in self.bad:  # all priorities alike: the initiator's choice decides
                self.own[-1].priority = 1000
        if "proxy" in self.bad and self.peer.proxy:
            self.own.append(Candidate(*self.peer.proxy[1:], "proxy", jid=self.peer.proxy[0]))

    def to_xml(self):
        it = ET.Element(f"{{{NS}}}transport", {"sid": self.sid})
        if self.initiator:
            it.set("mode", "tcp")
        if any(c.kind == "proxy" for c in self.own):
            it.set("dstaddr", dst_addr(self.sid, self.me, self.to))
        it.extend(c.to_xml() for c in self.own)
        return it

    def info(self, name, **attributes):
        it = ET.Element(f"{{{NS}}}transport", {"sid": self.sid})
        it.append(ET.Element(f"{{{NS}}}{name}", attributes))
        return it

    def heard(self, transport):
        """A transport-info of the other side."""
        for it in transport:
            name = it.tag.split("}")[1]
            self.peer.say("s5b", told=name, cid=it.get("cid"))
            if name == "candidate-used" and not self.their_choice.done():
                self.their_choice.set_result(next((c for c in self.own if c.cid == it.get("cid")), None))
            elif name == "candidate-error" and not self.their_choice.done():
                self.their_choice.set_result(None)
            elif name == "activated" and not self.activated.done():
                self.activated.set_result(True)
            elif name == "proxy-error" and not self.activated.done():
                self.activated.set_result(False)

    async def serve(self, reader, writer):
        """A SOCKS5 server that knows one address."""
        try:
            _, methods = await reader.readexactly(2)
            await reader.readexactly(methods)
            writer.write(b"\x05\x00")
            head = await reader.readexactly(5)
            name = await reader.readexactly(head[4])
            port = await reader.readexactly(2)
            right = head[:4] == b"\x05\x01\x00\x03" and name.decode() == dst_addr(self.sid, self.me, self.to)
            self.peer.say("socks5", dst_addr=name.decode(errors="replace"), right=right)
            if "refuse-socks" in self.bad:
                right = False
            if "silent-socks" in self.bad:
                await asyncio.sleep(60)
            writer.write(bytes([5, 0 if right else 2, 0]) + head[3:] + name + port)
            await writer.drain()
            if not right:
                writer.close()
                return
            self.served[id(writer)] = ServedStream(reader, writer)
            self.served_any.set()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    async def choose(self, tell):
        """Tries their candidates, the best first, and says which one it was."""
        used = None
        dest = dst_addr(self.sid, self.to, self.me)
        if "wrong-dstaddr" in self.bad:
            dest = dst_addr(self.sid, "nobody@nowhere.test/x", self.me)
        if "dead-dial" not in self.bad:
            for candidate in sorted(self.theirs, key=lambda c: -c.priority):
                if "proxy-only" in self.bad and candidate.kind != "proxy":
                    continue
                if "claim-proxy" in self.bad and candidate.kind == "proxy":
                    used = candidate  # without ever having been there
                    break
                # J260-09: theirs is better already
                theirs = self.their_choice.result() if self.their_choice.done() else None
                if theirs and theirs.priority > candidate.priority:
                    break
                try:
                    self.dialled = await dial(candidate.host, candidate.port, dest)
                    used = candidate
                    break
                except Exception as why:
                    self.peer.say("refused", host=candidate.host, kind=candidate.kind, why=repr(why))
        self.own_choice.set_result(used)
        if used:
            await tell(self.info("candidate-used", cid=used.cid))
        else:
            await tell(self.info("candidate-error"))

    async def connect(self, tell):
        """The stream, or None when nothing works. `tell` sends a transport-info."""
        await self.choose(tell)
        theirs, ours = await asyncio.wait_for(self.their_choice, 30), self.own_choice.result()
        if not ours and not theirs:
            return None
        if ours and theirs and ours.priority == theirs.priority:
            mine_wins = self.initiator
        else:
            mine_wins = not theirs or (ours and ours.priority > theirs.priority)
        winner = ours if mine_wins else theirs
        self.kind = winner.kind
        self.peer.say("nominated", cid=winner.cid, kind=winner.kind, by="us" if mine_wins else "them")
        if winner.kind == "proxy":
            if mine_wins:  # theirs to activate
                if not await asyncio.wait_for(self.activated, 30):
                    return None
                return self.dialled
            try:
                if "no-activate" in self.bad:
                    raise OSError("told not to")
                stream = await dial(winner.host, winner.port, dst_addr(self.sid, self.me, self.to))
                await self.peer.plugin["xep_0065"].activate(winner.jid, self.sid, self.to)
            except (OSError, IqError, IqTimeout) as why:
                self.peer.say("not activated", why=repr(why))
                await tell(self.info("proxy-error"))
                return None
            await tell(self.info("activated", cid=winner.cid))
            return stream
        if mine_wins:
            return self.dialled
        await asyncio.wait_for(self.served_any.wait(), 10)
        return list(self.served.values())[-1]

    def close(self):
        if self.server:
            self.server.close()
