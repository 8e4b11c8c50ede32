#!/usr/bin/env bash
# files_peers.sh [MEBIBYTES [ROUNDS]]: the same file on loopback by plain TCP, `offhook send` → `offhook receive`, scp and
# magic-wormhole, in turns, and the medians beside each other; then 32 MiB of it in-band through Prosody while somebody else
# pings there. What is not on this machine is left out and said so: scp wants an sshd of its own (Debian package
# `openssh-server`; the system's service is not used), magic-wormhole comes from PyPI into the target folder. FILES_DIR says
# where the files lie, a tmpfs perhaps. Everything listens on 127.0.0.0/8 and ends with this script. Needs: prosody,
# lua-unbound, openssl, python3-venv.
set -euo pipefail
size=${1:-1024} rounds=${2:-3}
here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
work=$(mktemp -d ${FILES_DIR:+-p "$FILES_DIR"})
pids=()
end() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT
cd "$work"
say() { echo "files_peers: $*" >&2; }

# OFFHOOK names a program that is built already.
[ -n "${OFFHOOK:-}" ] || (cd "$here" && cargo build --release --locked --bin offhook 2>/dev/null)
offhook=${OFFHOOK:-$target/release/offhook}
python3 -c "
import os
with open('file', 'wb') as it:
    for _ in range($size): it.write(os.urandom(1 << 20))"
want=$(openssl dgst -sha256 -r file | cut -d' ' -f1)

# Two accounts on one Prosody, each the other's contact.
ip=127.$((RANDOM % 200 + 20)).$((RANDOM % 250)).1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench.test \
  -addext subjectAltName=DNS:bench.test -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out crt.pem 2>/dev/null
data=$work/data/bench%2etest
mkdir -p "$data/accounts" "$data/roster"
for pair in a:b b:a c:c; do
  echo 'return { ["password"] = "secret"; };' >"$data/accounts/${pair%:*}.dat"
  echo "return { [\"${pair#*:}@bench.test\"] = { subscription = \"both\"; groups = {}; }; [false] = { version = 1; }; };" \
    >"$data/roster/${pair%:*}.dat"
done
cat >prosody.cfg.lua <<LUA
$([ "$(id -u)" != 0 ] || echo 'run_as_root = true')
data_path = "$work/data"
log = { error = "$work/prosody.log" }
interfaces = { "$ip" } local_interfaces = { "$ip" }
c2s_ports = { 5222 } s2s_ports = {} http_ports = {} https_ports = {}
modules_disabled = { "posix", "s2s" }
modules_enabled = { "roster", "saslauth", "tls", "disco", "presence", "message", "iq", "ping" }
authentication = "internal_plain" storage = "internal"
ssl = { key = "$work/key.pem", certificate = "$work/crt.pem" }
VirtualHost "bench.test"
LUA
# shellcheck disable=SC2046
prosody $([ "$(id -u)" != 0 ] || echo --root) --config "$work/prosody.cfg.lua" -F >prosody.out 2>&1 &
pids+=($!)
until (exec 3<>"/dev/tcp/$ip/5222") 2>/dev/null; do sleep 0.1; done

# Seconds of a command's run.
seconds() { python3 -c "
import subprocess, sys, time
start = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(f'{time.monotonic() - start:.3f}')" "$@"; }
right() { [ "$(openssl dgst -sha256 -r "$1" | cut -d' ' -f1)" = "$want" ] || { say "$1 is not the file"; exit 1; }; }

plain() { # one process writes, one reads and stores, 256 KiB at a time
  python3 - "$work/file" "$work/got-plain" <<'PY'
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    out = socket.create_connection(listener.getsockname())
    with open(sys.argv[1], "rb", buffering=0) as it:
        block = bytearray(1 << 18)
        while n := it.readinto(block):
            out.sendall(memoryview(block)[:n])
    os._exit(0)
start = time.monotonic()
stream, _ = listener.accept()
with open(sys.argv[2], "wb", buffering=0) as it:
    block = bytearray(1 << 18)
    while n := stream.recv_into(block):
        it.write(memoryview(block)[:n])
print(f"{time.monotonic() - start:.3f}")
os.wait()
PY
  right got-plain; rm got-plain
}

peaks=$work/peaks
ours() { # [FILE [WAY]]; signed in already on both sides would be unfair to nobody, so signing in counts
  local file=${1:-file} way=${2:-auto}
  rm -rf in; mkdir in
  OFFHOOK_PASSWORD=secret XDG_CONFIG_HOME=$work/none XDG_STATE_HOME=$work/none "$offhook" receive --accept contacts --once \
    --dir in --account b@bench.test --server "$ip:5222" --ca-file crt.pem --lab --json >receive.json 2>receive.err &
  local receiver=$!
  until grep -q online receive.json; do
    kill -0 "$receiver" 2>/dev/null || { say "offhook receive: $(tail -1 receive.err)"; exit 1; }
    sleep 0.02
  done
  sleep 0.3
  OFFHOOK_PASSWORD=secret XDG_CONFIG_HOME=$work/none XDG_STATE_HOME=$work/none python3 - "$receiver" "$peaks" "$offhook" send \
    b@bench.test "$file" --transport "$way" --account a@bench.test --server "$ip:5222" --ca-file crt.pem --lab --json <<'PY'
import json, re, subprocess, sys, threading, time
receiver, peaks, command = sys.argv[1], sys.argv[2], sys.argv[3:]
def peak(pid):
    try:
        return int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])
    except (OSError, TypeError):
        return 0
begin = time.monotonic()
sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
highest, moving, done = [0, 0], None, None
def watch():
    while sender.poll() is None:
        highest[:] = [max(highest[0], peak(sender.pid)), max(highest[1], peak(receiver))]
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
for line in sender.stdout:
    event = json.loads(line)["event"]
    if event == "connected": moving = time.monotonic()
    if event == "file": done = time.monotonic()
if sender.wait() != 0: sys.exit(1)
print(f"{done - begin:.3f} {done - moving:.3f}")
print(*highest, file=open(peaks, "w"))
PY
  wait "$receiver"
  [ "$file" != file ] || right in/file
}

inband() { # a file of 32 MiB, and the round trips of an account of its own beside it, with and without
  head -c $((32 << 20)) file >small
  python3 ping.py "$ip" quiet.pings & local ping=$!
  sleep 4; kill "$ping"; wait "$ping" || true
  python3 ping.py "$ip" busy.pings & ping=$!
  ours small ibb >inband.times
  kill "$ping"; wait "$ping" || true
  cmp small in/small
}
cat >ping.py <<'PY'
# Signs in as c@bench.test and pings the server every 20 ms until it is ended; milliseconds, one a line.
import base64, re, signal, socket, ssl, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
def talk(sock, text, until):
    sock.sendall(text.encode())
    got = b""
    while not re.search(until.encode(), got):
        more = sock.recv(65536)
        if not more: sys.exit("ping.py: the server closed: " + got.decode())
        got += more
    return got
head = "<stream:stream to='bench.test' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
sock = socket.create_connection((sys.argv[1], 5222))
talk(sock, head, "</stream:features>")
talk(sock, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed")
context = ssl.create_default_context(cafile="crt.pem")
sock = context.wrap_socket(sock, server_hostname="bench.test")
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
talk(sock, head, "</stream:features>")
plain = base64.b64encode(b"\0c\0secret").decode()
talk(sock, f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>", "<success")
talk(sock, head, "</stream:features>")
talk(sock, "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
took = []
try:
    while True:
        start = time.monotonic()
        n = len(took)
        talk(sock, f"<iq type='get' to='bench.test' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>", f"p{n}['\"]")
        took.append((time.monotonic() - start) * 1000)
        time.sleep(0.02)
except KeyboardInterrupt:
    print(*took, sep="\n", file=open(sys.argv[2], "w"))
PY

secure_copy() { rm -f got-scp; seconds scp -q -F none -P 2299 -i ssh/user -o UserKnownHostsFile=/dev/null \
  -o StrictHostKeyChecking=no "$ip:$work/file" got-scp; right got-scp; rm got-scp; }
scp_is=no
if command -v scp >/dev/null && [ -x /usr/sbin/sshd ]; then
  mkdir -m 700 ssh
  ssh-keygen -q -t ed25519 -N '' -f ssh/host && ssh-keygen -q -t ed25519 -N '' -f ssh/user
  cp ssh/user.pub ssh/authorized
  mkdir -p /run/sshd 2>/dev/null || true
  printf '%s\n' "ListenAddress $ip:2299" "HostKey $work/ssh/host" "AuthorizedKeysFile $work/ssh/authorized" \
    'StrictModes no' 'UsePAM no' "PidFile $work/ssh/pid" 'Subsystem sftp internal-sftp' >ssh/config
  /usr/sbin/sshd -D -f "$work/ssh/config" 2>ssh/log &
  pids+=($!)
  sleep 1
  secure_copy >/dev/null 2>ssh/try && scp_is=yes || say "scp: sshd does not serve here: $(tail -1 ssh/try ssh/log | tr '\n' ' ')"
else
  say "scp: no /usr/sbin/sshd (Debian package openssh-server), left out"
fi

wormhole_is=no
venv=$target/tmp/wormhole
if [ -x "$venv/bin/wormhole" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check \
  magic-wormhole==0.24.0 magic-wormhole-mailbox-server==0.8.0 magic-wormhole-transit-relay==0.5.0; } 2>wormhole.err; then
  "$venv/bin/twist" wormhole-mailbox --port="tcp:4801:interface=$ip" --channel-db="$work/mailbox.db" \
    --usage-db="$work/usage.db" >mailbox.log 2>&1 &
  pids+=($!)
  "$venv/bin/twist" transitrelay --port="tcp:4802:interface=$ip" >transit.log 2>&1 &
  pids+=($!)
  for port in 4801 4802; do
    for _ in $(seq 100); do (exec 3<>"/dev/tcp/$ip/$port") 2>/dev/null && break; sleep 0.1; done
  done
  wormhole_is=yes
else
  say "magic-wormhole: $(tail -1 wormhole.err), left out"
fi
wormhole() {
  rm -rf got-wormhole
  local servers=(--relay-url "ws://$ip:4801/v1" --transit-helper "tcp:$ip:4802") code="7-bench-file"
  "$venv/bin/wormhole" "${servers[@]}" send --hide-progress --code "$code" file >wormhole.log 2>&1 &
  local sender=$!
  sleep 2
  seconds "$venv/bin/wormhole" "${servers[@]}" receive --hide-progress --accept-file -o got-wormhole "$code"
  wait "$sender"
  right got-wormhole; rm -f got-wormhole
}

for round in $(seq "$rounds"); do
  plain >>plain.times
  ours >>ours.times
  [ $scp_is = no ] || secure_copy >>scp.times 2>/dev/null
  [ $wormhole_is = no ] || wormhole >>wormhole.times 2>>wormhole.err || { say "magic-wormhole fails: $(tail -1 wormhole.err)"; wormhole_is=no; }
  say "round $round of $rounds"
done
mv peaks peaks.kept
inband
mv peaks.kept peaks
python3 - "$size" <<'PY'
import os, statistics, sys
size = int(sys.argv[1])
times = {}
for name in ("plain", "ours", "scp", "wormhole"):
    if os.path.exists(name + ".times"):
        rows = [[float(x) for x in line.split()] for line in open(name + ".times")]
        times[name] = statistics.median(row[0] for row in rows)
        if name == "ours":
            times["ours, moving"] = statistics.median(row[1] for row in rows)
titles = {"plain": "plain TCP, disk to disk, no hash", "ours": "offhook, sign-in and SHA-256 included",
          "ours, moving": "offhook, from the first byte", "scp": "scp", "wormhole": "magic-wormhole"}
print(f"{size} MiB on loopback, median")
for name, title in titles.items():
    if name in times:
        print(f"  {title:40} {times[name]:7.2f} s  {size * 1.048576 / times[name]:8.0f} MB/s  {times[name] / times['ours']:5.1f} x ours")
sender, receiver = open("peaks").read().split()
print(f"  peak memory: sender {int(sender) / 1024:.1f} MiB, receiver {int(receiver) / 1024:.1f} MiB")
seconds = float(open("inband.times").read().split()[1])
print(f"  in-band through Prosody: {32 * 1.048576 / seconds:.1f} MB/s, 32 MiB in {seconds:.1f} s; meanwhile a ping of another session")
for name in ("quiet", "busy"):
    pings = sorted(float(x) for x in open(name + ".pings"))
    print(f"    {name}: {len(pings)} pings, median {statistics.median(pings):.1f} ms, "
          f"99 % {pings[int(len(pings) * 0.99)]:.1f} ms, largest {pings[-1]:.1f} ms")
PY
