#!/usr/bin/env bash
# sip_calls.sh [RATE [SECONDS [CALLS]]]: sipp calls examples/sip_answer.rs and Asterisk 22 in turns, on loopback addresses:
# CPU of the answering side for a call (INVITE, 180, 200, ACK, BYE, 200), then RATE calls a second for SECONDS at ours without
# a failure, then resident memory before and after CALLS calls. Needs: sip-tester; Asterisk comes by .ci/asterisk.
# ANSWER names an answering program that is built already; it is given ADDRESS:PORT.
set -euo pipefail
rate=${1:-1000} seconds=${2:-60} calls=${3:-30000}
here=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
work=$(mktemp -d)
pids=()
end() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT
cd "$work"
say() { echo "sip_calls: $*" >&2; }

[ -n "${ANSWER:-}" ] || (cd "$here" && cargo build --release --locked --example sip_answer 2>/dev/null)
answer=${ANSWER:-$target/release/examples/sip_answer}
net=127.$((RANDOM % 200 + 20)).$((RANDOM % 250))
tick=$(getconf CLK_TCK)

# Seconds of CPU of a process and KiB of its memory.
cpu() { awk -v tick="$tick" '{ sub(/^.*\) /, ""); print ($12 + $13) / tick }' "/proc/$1/stat"; }
memory() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

# calls EXTENSION ADDRESS COUNT RATE: says how many failed.
run() {
  rm -f statistics.csv
  sipp -sn uac -s "$1" -i "$net.9" -p 5060 -m "$3" -r "$4" -l 20000 -d 50 -nostdin -timeout $(($3 / $4 + 60)) \
    -trace_stat -stf statistics.csv -fd 1 "$2:5060" >sipp.screen 2>&1 </dev/null || true
  # The last line counts from the start; the column is named in the first.
  awk -F';' 'NR == 1 { for (n = 1; n <= NF; n++) if ($n == "FailedCall(C)") failed = n; else if ($n == "SuccessfulCall(C)") good = n }
    END { print $good, $failed }' statistics.csv
}

"$answer" "$net.1:5060" >answer.log 2>&1 &
ours=$!
pids+=("$ours")

program=$("$here/.ci/asterisk" 22)
place=$(dirname "$program")
fill() { sed -e "s#@IP@#$net.2#g;s#@FOLDER@#$work#g;s#@PLACE@#$place#g;s#@100REL@#peer_supported#;s#@CANDIDATES@##;s#^debug=yes#debug=no#"; }
for file in asterisk extensions pjsip; do fill <"$here/tests/asterisk/$file.conf" >$file.conf; done
# No TLS here, everybody may call, and nothing is written down.
awk '/^\[(tls|wss|ws|webrsa|web)\]/ { skip = 1 } /^\[/ && !/^\[(tls|wss|ws|webrsa|web)\]/ { skip = 0 } !skip' pjsip.conf >some.conf
{ cat some.conf; printf '\n[anonymous](phone)\n'; } >pjsip.conf
fill <"$here/tests/asterisk/rest.conf" | awk '/^### / { out = $2; printf "" > out; next } { print > out }'
printf '[general]\n[logfiles]\nlog => error\n' >logger.conf
printf '[general]\nenabled=no\n' >http.conf
beginnings=$(sed -n '/^const MODULES/,/^";/p' "$here/tests/common/asterisk.rs" | grep '^    ' | tr -s ' ' '\n' | grep . | tr '\n' ' ')
{
  printf '[modules]\nautoload=no\n'
  for module in "$place"/modules/*.so; do
    name=$(basename "$module")
    case $name in res_pjsip_stir_shaken.so | res_pjsip_send_to_voicemail.so | res_sorcery_realtime.so) continue ;; esac
    for beginning in $beginnings; do
      case $name in "$beginning"*) echo "load => $name" ;; esac
    done
  done
} >modules.conf
"$program" -f -C "$work/asterisk.conf" >asterisk.out 2>&1 </dev/null &
theirs=$!
pids+=("$theirs")
until "$program" -C "$work/asterisk.conf" -rx 'core waitfullybooted' 2>/dev/null | grep -q 'fully booted'; do sleep 0.2; done

# Both have seen some calls before anything is measured.
run 610 "$net.1" 500 100 >/dev/null
run 610 "$net.2" 500 100 >/dev/null
for round in 1 2 3; do
  for side in "ours $net.1 $ours 5000 500" "asterisk $net.2 $theirs 1000 100"; do
    read -r name address pid count speed <<<"$side"
    before=$(cpu "$pid")
    read -r good failed <<<"$(run 610 "$address" "$count" "$speed")"
    after=$(cpu "$pid")
    echo "$name round $round: $good calls, $failed failed, $(awk "BEGIN { printf \"%.3f\", ($after - $before) * 1000 / $count }") ms CPU for a call"
  done
done

# The allocator keeps what it once had (glibc gives it back by malloc_trim only): whether memory grows is seen from the second
# time on.
say "as many calls as will be measured, then waiting until what ended is forgotten (RFC 3261: 32 s)"
run 610 "$net.1" "$calls" 500 >/dev/null
sleep 40
start=$(memory "$ours")
read -r good failed <<<"$(run 610 "$net.1" "$calls" 500)"
full=$(memory "$ours")
sleep 40
echo "ours: $good calls, $failed failed; memory $start KiB before, $full KiB at once after, $(memory "$ours") KiB 40 s later"
before=$(cpu "$ours")
read -r good failed <<<"$(run 610 "$net.1" $((rate * seconds)) "$rate")"
after=$(cpu "$ours")
echo "ours at $rate calls/s for $seconds s: $good calls, $failed failed, $(awk "BEGIN { printf \"%.3f\", ($after - $before) * 1000 / ($rate * $seconds) }") ms CPU for a call"
