//! The command line as a contract: flags, exit codes, messages, JSON. Everything here runs the real program without a
//! network; what needs servers stands in other tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Flags that `call` and `answer` share.
const MEDIA: [&str; 9] =
    ["--play", "--record", "--tone", "--null-audio", "--dtmf", "--codec", "--duration", "--media", "--transfer"];
const NETWORK: [&str; 5] = ["--relay-only", "--lab", "--stun", "--turn", "--require-fingerprint"];
const ACCOUNT: [&str; 14] = [
    "--auth-user",
    "--certificate",
    "--key",
    "--sip-listen",
    "--account",
    "--config",
    "--server",
    "--direct-tls",
    "--ca-file",
    "--insecure-plaintext",
    "--serverless",
    "--connect",
    "--pin",
    "--password-file",
];
const COMMANDS: [&str; 7] = ["demo", "call", "answer", "send", "receive", "completions", "man"];
const GLOBAL: [&str; 6] = ["--json", "--verbose", "--quiet", "--color", "--log-format", "--log-addresses"];

/// A folder that is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("offhook-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program without anything of this user's own configuration, for a minute at most.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_offhook")]).args(arguments).stdin(Stdio::null());
    for variable in ["OFFHOOK_PASSWORD", "OFFHOOK_LOG", "XDG_CONFIG_HOME", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command.env("HOME", "/nonexistent").env("COLUMNS", "100");
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs, and checks the exit code and that the message on stderr holds all `words`; stdout stays empty.
#[track_caller]
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}: scripts read stdout: {}", stdout(&output));
    for word in words {
        assert!(text.contains(word), "{arguments:?} does not say {word:?}: {text}");
    }
}

#[track_caller]
fn help_names(command: &str, flags: &[&str]) {
    let output = run(&[command, "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for flag in flags.iter().chain(&GLOBAL) {
        assert!(help.contains(flag), "{command} --help lacks {flag}:\n{help}");
    }
}

#[test]
fn the_help_of_every_command_names_the_flags_of_the_contract() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for command in COMMANDS {
        assert!(stdout(&output).lines().any(|l| l.trim_start().starts_with(command)), "{command}");
    }
    let of = |more: &[&'static str]| [&MEDIA[..], &NETWORK[..], &ACCOUNT[..], more].concat();
    let files = |more: &[&'static str]| [&NETWORK[..], &ACCOUNT[..], more].concat();
    help_names("demo", &["--out", "--seconds"]);
    help_names("call", &of(&["--timeout", "<ADDRESS>"]));
    help_names("answer", &of(&["--auto-answer", "--once"]));
    help_names("send", &files(&["<ADDRESS>", "<FILE>...", "--transport", "auto", "s5b", "datachannel", "ibb"]));
    help_names("receive", &files(&["--dir", "--accept", "--max-size", "10G", "--once"]));
    help_names("completions", &["<SHELL>"]);
    help_names("man", &[]);
    let version = run(&["--version"]);
    assert_eq!(stdout(&version).trim(), format!("offhook {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn unknown_commands_and_flags_are_usage_errors() {
    refused(&[], 2, &["Usage"]);
    refused(&["dance"], 2, &["dance"]);
    refused(&["call", "a@b.example", "--louder"], 2, &["--louder"]);
    refused(&["call"], 2, &["ADDRESS"]);
    refused(&["demo", "--seconds", "0"], 2, &["--seconds"]);
    refused(&["completions", "tcl"], 2, &["tcl"]);
    refused(&["send", "a@b.example"], 2, &["<FILE>"]);
    refused(&["send", "a@b.example", "/etc/hostname", "--transport", "pigeon"], 2, &["pigeon", "datachannel"]);
    refused(&["send", "a@b@c", "/etc/hostname"], 2, &["a@b@c"]);
    refused(&["receive", "--max-size", "ten"], 2, &["ten", "K, M, G or T"]);
    refused(&["receive", "--accept", "a@b@c"], 2, &["a@b@c"]);
    refused(&["receive", "file"], 2, &["file"]);
}

#[test]
fn commands_of_later_issues_are_honest_usage_errors() {
    for command in ["bridge", "presence", "doctor", "ptt", "trace", "contacts"] {
        refused(&[command], 2, &["unrecognized subcommand", command]);
    }
    let turns = "turns:turn.example.org:5349?transport=tcp";
    let call = ["call", "a@b.example", "--null-audio", "--serverless", "127.0.0.1:0", "--turn", turns];
    refused(&call, 2, &[turns, "not there yet"]);
}

#[test]
fn arguments_that_cannot_be_meant_are_usage_errors() {
    refused(&["call", "a@b@c", "--null-audio"], 2, &["a@b@c"]);
    refused(&["call", "a@b.example", "--null-audio", "--dtmf", "12x"], 2, &["--dtmf", "'X'"]);
    refused(&["call", "a@b.example", "--null-audio", "--tone", "440"], 2, &["--tone", "--null-audio"]);
    refused(&["call", "a@b.example", "--play", "/nonexistent.wav"], 2, &["/nonexistent.wav"]);
    let serverless = ["call", "a@b.example", "--null-audio", "--serverless", "127.0.0.1:0"];
    refused(&[&serverless[..], &["--codec", "mp3"]].concat(), 2, &["mp3", "opus"]);
    refused(&[&serverless[..], &["--pin", "abcd"]].concat(), 2, &["64"]);
    refused(&[&serverless[..], &["--require-fingerprint", "zz"]].concat(), 2, &["64"]);
    refused(&["answer", "--auto-answer", "a@b@c"], 2, &["a@b@c"]);
}

#[test]
fn sip_arguments_that_cannot_be_meant_are_usage_errors() {
    refused(&["call", "sip:600@pbx.test", "--null-audio", "--media", "magic"], 2, &["magic", "sdes"]);
    refused(&["call", "sip:", "--null-audio"], 2, &["no address"]);
    refused(&["call", "sip:a@b", "--null-audio", "--server", "tcp:"], 2, &["HOST:PORT"]);
    refused(&["answer", "--null-audio", "--sip-listen", "192.0.2.1"], 2, &["udp:IP:PORT"]);
    refused(&["send", "sip:a@b.test", "x"], 2, &["carries no files"]);
    refused(&["call", "sip:a@b", "--null-audio", "--certificate", "x.pem"], 2, &["--key"]);
    refused(&["call", "sip:a@b", "--null-audio", "--account", "sip:c@d"], 3, &["--password-file"]);
}

/// Two telephones without a PBX: what both print, and their exit codes.
fn telephones(port: u16, answer: &[&str], call: &[&str]) -> [(i32, String); 2] {
    let listen = format!("udp:127.0.0.1:{port}");
    let mut arguments = vec!["answer", "--json", "--sip-listen", &listen, "--once", "--auto-answer", "all"];
    arguments.extend(answer);
    let answering = program(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let to = format!("sip:anybody@127.0.0.1:{port}");
    let mut arguments = vec!["call", "--json", &to];
    arguments.extend(call);
    let called = run(&arguments);
    let answered = answering.wait_with_output().unwrap();
    [answered, called].map(|output| {
        let text = format!("{}{}", stdout(&output), stderr(&output));
        (output.status.code().unwrap(), text)
    })
}

#[test]
fn two_telephones_talk_without_a_pbx_in_each_protection() {
    for (port, security, encrypted) in [(39_511, "plain", false), (39_513, "sdes", true), (39_515, "dtls", true)] {
        let folder = Folder::new(&format!("sip-{security}"));
        let [heard, answer] = ["heard.wav", "answer.wav"].map(|name| folder.0.join(name).display().to_string());
        let [answered, called] = telephones(
            port,
            &["--tone", "700", "--record", &heard, "--media", security],
            &["--tone", "440", "--record", &answer, "--media", security, "--duration", "2", "--dtmf", "4#"],
        );
        assert_eq!((answered.0, called.0), (0, 0), "{security}: {} {}", answered.1, called.1);
        for text in [&answered.1, &called.1] {
            let words = format!("\"encrypted\":{encrypted}");
            assert!(text.contains(&words) && text.contains("\"event\":\"ended\""), "{security}: {text}");
        }
        assert!(answered.1.contains("\"digit\":\"4\"") && answered.1.contains("\"digit\":\"#\""), "{}", answered.1);
        for path in [&heard, &answer] {
            let bytes = std::fs::read(path).unwrap();
            let loud = bytes.chunks_exact(2).filter(|s| i16::from_le_bytes([s[0], s[1]]).abs() > 3000).count();
            assert!(loud > 48_000, "{security} {path}: {loud} loud samples");
        }
    }
}

#[test]
fn a_telephone_that_nobody_reaches_says_so() {
    refused(
        &["call", "sip:nobody@127.0.0.1:9;transport=tcp", "--null-audio", "--quiet"],
        5,
        &["the server connection is gone"],
    );
}

#[test]
fn a_serverless_peer_is_never_connected_to_without_its_pin() {
    refused(&["call", "a@b.example", "--null-audio", "--connect", "127.0.0.1:9"], 2, &["--pin"]);
}

#[cfg(not(feature = "audio-device"))]
#[test]
fn a_build_without_a_sound_card_says_what_to_do_instead() {
    refused(&["call", "a@b.example"], 2, &["audio-device", "--play", "--tone", "--null-audio"]);
}

#[test]
fn a_call_without_an_account_or_a_password_says_which_flag_gives_it() {
    refused(&["call", "a@b.example", "--null-audio"], 3, &["error: no account", "--account", "--serverless"]);
    let account = ["call", "a@b.example", "--null-audio", "--account", "me@b.example"];
    refused(&account, 3, &["error: no password", "--password-file", "OFFHOOK_PASSWORD"]);
    refused(&[&account[..], &["--password-file", "/nonexistent"]].concat(), 3, &["/nonexistent"]);
}

#[test]
fn no_flag_of_any_command_holds_a_secret() {
    for command in ["demo", "call", "answer", "send", "receive"] {
        let help = stdout(&run(&[command, "--help"]));
        let taking = help.lines().filter(|l| l.contains("--pass") || l.contains("--secret") || l.contains("--token"));
        for line in taking {
            assert!(line.contains("--password-file <FILE>"), "{command}: {line}");
        }
    }
    refused(&["call", "a@b.example", "--password", "hunter2"], 2, &["--password"]);
}

#[test]
fn a_configuration_file_that_others_may_read_holds_no_password() {
    let folder = Folder::new("mode");
    let open = folder.file("open.toml", "account = \"me@b.example\"\npassword = \"secret word\"\n", 0o644);
    let call = |file: &Path| {
        vec![
            "call".to_owned(),
            "a@b.example".into(),
            "--null-audio".into(),
            "--config".into(),
            file.display().to_string(),
        ]
    };
    let arguments = call(&open);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(&arguments, 3, &["chmod 600", "open.toml"]);
    assert!(!stderr(&run(&arguments)).contains("secret word"));
    // Nobody listens there: that it gets so far shows that the file and its password were taken.
    let private = folder.file(
        "private.toml",
        "account = \"me@b.example\"\npassword = \"secret word\"\nserver = \"127.0.0.1:9\"\n",
        0o600,
    );
    let arguments = call(&private);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(&arguments, 5, &["error:", "--server"]);
}

#[test]
fn an_unknown_key_of_the_configuration_file_is_named_with_its_line() {
    let folder = Folder::new("key");
    let file = folder.file("config.toml", "account = \"me@b.example\"\n\nadress_policy = \"accept\"\n", 0o600);
    refused(
        &["call", "a@b.example", "--null-audio", "--config", &file.display().to_string()],
        3,
        &["adress_policy", "line 3", "config.toml"],
    );
    refused(&["call", "a@b.example", "--null-audio", "--config", "/nonexistent.toml"], 3, &["/nonexistent.toml"]);
}

#[test]
fn what_a_person_typed_is_shown_without_its_control_characters() {
    let text = stderr(&run(&["call", "\x1b[2Ja@@b", "--null-audio"]));
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn the_manual_page_and_the_completions_know_every_command() {
    let man = run(&["man"]);
    assert_eq!(man.status.code(), Some(0));
    let page = stdout(&man);
    assert!(page.contains(".TH offhook 1") && page.contains(".SH SYNOPSIS"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = stdout(&output);
        for word in COMMANDS.iter().chain(&["null-audio", "require-fingerprint", "transport", "max-size"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(stderr(&output).is_empty(), "{shell}");
    }
    for command in COMMANDS {
        assert!(page.contains(command), "{command}");
    }
}

#[test]
fn the_bash_completion_is_a_script_that_bash_takes() {
    let folder = Folder::new("bash");
    let script = folder.file("offhook.bash", &stdout(&run(&["completions", "bash"])), 0o644);
    let check = format!("source {} && complete -p offhook", script.display());
    let output = Command::new("bash").args(["--norc", "-c", &check]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("offhook"));
}

#[test]
fn the_demo_talks_and_prints_json_for_scripts() {
    let folder = Folder::new("demo");
    let out = folder.0.join("out");
    let output = run(&["demo", "--json", "--seconds", "2", "--out", &out.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.lines().count() >= 2, "{text}");
    let (mut sides, mut ways) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert_eq!(object["v"], 1, "{line}");
        assert!(object["event"].is_string(), "{line}");
        if object["event"] == "demo" {
            assert!(object["correlation"].as_f64().unwrap() > 0.9, "{line}");
            assert_eq!(object["codec"], "opus", "{line}");
            sides.push(object["side"].as_str().unwrap().to_owned());
        }
        if object["event"] == "file" {
            assert_eq!((&object["bytes"], &object["verified"]), (&8_388_608.into(), &true.into()), "{line}");
            assert!(object["rate"].as_f64().unwrap() > 100_000.0, "{line}");
            ways.push(object["way"].as_str().unwrap().to_owned());
        }
    }
    sides.sort();
    assert_eq!(sides, ["callee", "caller"]);
    assert_eq!(ways, ["s5b-direct", "ibb"]);
    assert!(std::fs::read(out.join("received/demo.bin")).unwrap() == std::fs::read(out.join("demo.bin")).unwrap());
    for name in ["caller.wav", "callee.wav"] {
        let bytes = std::fs::read(out.join(name)).unwrap();
        assert!(bytes.starts_with(b"RIFF") && bytes.len() > 2 * 96_000, "{name}: {} bytes", bytes.len());
    }
}

/// Reads what a program prints until a line of JSON has `event`.
fn await_event(lines: &mut impl Iterator<Item = std::io::Result<String>>, event: &str) -> serde_json::Value {
    for line in lines {
        let line = line.unwrap();
        let object: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert_eq!(object["v"], 1, "{line}");
        if object["event"] == event {
            return object;
        }
    }
    panic!("the program ended without {event}");
}

#[test]
fn a_pair_without_a_server_calls_plays_records_and_hangs_up() {
    use std::io::BufRead;
    let folder = Folder::new("pair");
    let heard = folder.0.join("heard.wav").display().to_string();
    let mut answer = program(&[
        "answer",
        "--json",
        "--serverless",
        "127.0.0.1:0",
        "--lab",
        "--tone",
        "440",
        "--auto-answer",
        "all",
        "--once",
        "--account",
        "juliet@capulet.example",
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    let mut lines = std::io::BufReader::new(answer.stdout.take().unwrap()).lines();
    let listening = await_event(&mut lines, "listening");
    let (addr, pin) = (listening["addr"].as_str().unwrap(), listening["pin"].as_str().unwrap());
    let connect = ["call", "juliet@capulet.example", "--json", "--connect", addr, "--lab", "--tone", "880"];
    // Another certificate than the pinned one ends it before a byte of the stream.
    let wrong = run(&[&connect[..], &["--pin", &"0".repeat(64)]].concat());
    assert_eq!(wrong.status.code(), Some(10), "{}", stderr(&wrong));
    let rest = ["--pin", pin, "--duration", "2", "--dtmf", "7#", "--record", &heard, "--codec", "pcmu"];
    let call = run(&[&connect[..], &rest].concat());
    assert_eq!(call.status.code(), Some(0), "{}", stderr(&call));
    let text = stdout(&call);
    let mut said = text.lines().map(|l| Ok(l.to_owned()));
    let connected = await_event(&mut said, "connected");
    assert_eq!(connected["codec"], "PCMU", "{connected}");
    assert_eq!(connected["encrypted"], true, "{connected}");
    assert!(connected["dtls_fingerprint"].as_str().unwrap().starts_with("sha-256 "), "{connected}");
    let stats = await_event(&mut said, "stats");
    // How good it is depends on how busy the machine is; that it is measured does not.
    assert!((1.0..=4.5).contains(&stats["mos"].as_f64().unwrap()), "{stats}");
    assert!(stats["packets_in"].as_u64().unwrap() > 0, "{stats}");
    let ended = await_event(&mut said, "ended");
    assert_eq!((&ended["reason"], &ended["by"]), (&"success".into(), &"local".into()));
    for event in ["incoming", "connected"] {
        await_event(&mut lines, event);
    }
    for digit in ["7", "#"] {
        assert_eq!(await_event(&mut lines, "dtmf")["digit"], digit);
    }
    assert_eq!(await_event(&mut lines, "ended")["by"], "remote");
    assert_eq!(answer.wait().unwrap().code(), Some(0));
    let recorded = std::fs::read(&heard).unwrap();
    let loudest = recorded.chunks_exact(2).skip(22).map(|s| i16::from_le_bytes([s[0], s[1]])).max().unwrap();
    assert!(loudest > 1000, "the recording is silent: {loudest}");
}

#[test]
fn addresses_are_in_the_log_only_when_asked_for() {
    use std::io::BufRead;
    for asked in [false, true] {
        let mut arguments = vec!["answer", "--serverless", "127.0.0.1:0", "--null-audio", "--json", "-v"];
        if asked {
            arguments.push("--log-addresses");
        }
        let mut child = program(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let port = await_event(&mut lines, "listening")["addr"].as_str().unwrap().to_owned();
        // `timeout` hands SIGTERM on to the program.
        let ended = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(ended.success());
        let text = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
        let logged = text.lines().any(|line| line.contains("INFO") && line.contains(&port));
        assert_eq!(logged, asked, "{text}");
    }
}

/// `receive` without a server, and what a sender needs to find it.
struct Receiver {
    child: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    addr: String,
    pin: String,
}

impl Receiver {
    fn start(dir: &Path, more: &[&str]) -> Self {
        use std::io::BufRead;
        let dir = dir.display().to_string();
        let arguments = ["receive", "--json", "--serverless", "127.0.0.1:0", "--lab", "--dir", &dir];
        let mut child =
            program(&[&arguments[..], more].concat()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = await_event(&mut lines, "listening");
        let word = |name: &str| listening[name].as_str().unwrap().to_owned();
        Self { child, lines, addr: word("addr"), pin: word("pin") }
    }

    fn sender(&self, more: &[&str]) -> Command {
        let arguments = ["send", "me@offhook.invalid", "--json", "--connect", &self.addr, "--pin", &self.pin, "--lab"];
        program(&[&arguments[..], more].concat())
    }

    /// Its exit code, and what it said.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), stderr(&output))
    }
}

/// Bytes of which no two blocks are alike.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(bytes)
    .collect()
}

#[test]
fn files_and_directories_go_over_by_each_way() {
    let folder = Folder::new("files");
    let tree = folder.0.join("tree");
    std::fs::create_dir_all(tree.join("deep")).unwrap();
    let big = noise(300_000);
    std::fs::write(tree.join("deep/big.bin"), &big).unwrap();
    std::fs::write(tree.join("empty"), "").unwrap();
    std::fs::write(folder.0.join("note.txt"), "hello").unwrap();
    let (tree, note) = (tree.display().to_string(), folder.0.join("note.txt").display().to_string());
    for (transport, way) in [("s5b", "s5b-direct"), ("datachannel", "datachannel"), ("ibb", "ibb")] {
        let inbox = folder.0.join(transport);
        let mut receiver = Receiver::start(&inbox, &["--accept", "all", "--once"]);
        let send = receiver.sender(&[&tree, &note, "--transport", transport]).output().unwrap();
        assert_eq!(send.status.code(), Some(0), "{transport}: {}", stderr(&send));
        let said = stdout(&send);
        let events: Vec<serde_json::Value> = said.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
        let of = |name: &str| events.iter().filter(|e| e["event"] == name).collect::<Vec<_>>();
        assert_eq!(of("file").len(), 3, "{transport}: {said}");
        assert!(
            of("file").iter().all(|e| e["verified"] == true && e["sha256"].as_str().unwrap().len() == 64),
            "{said}"
        );
        assert!(!of("connected").is_empty() && of("connected").iter().all(|e| e["way"] == way), "{said}");
        assert_eq!(of("ended")[0]["reason"], "success", "{said}");
        assert_eq!(await_event(&mut receiver.lines, "incoming")["from"], "me@offhook.invalid");
        let file = await_event(&mut receiver.lines, "file");
        assert!(file["path"].as_str().unwrap().starts_with(&inbox.display().to_string()), "{file}");
        let (code, text) = receiver.end();
        assert_eq!(code, Some(0), "{transport}: {text}");
        // A file below a directory has the names of its folders in front.
        assert!(std::fs::read(inbox.join("tree_deep_big.bin")).unwrap() == big, "{transport}");
        assert_eq!(std::fs::read(inbox.join("tree_empty")).unwrap(), b"");
        assert_eq!(std::fs::read(inbox.join("note.txt")).unwrap(), b"hello");
        assert_eq!(std::fs::read_dir(&inbox).unwrap().count(), 3, "{transport}: something is left over");
    }
}

#[test]
fn nothing_is_overwritten_and_names_from_the_network_are_harmless() {
    let folder = Folder::new("names");
    let source = folder.0.join("\x1b[2J..\u{202E}note.txt");
    std::fs::write(&source, "new").unwrap();
    let inbox = folder.0.join("in");
    for round in 0..2 {
        let mut receiver = Receiver::start(&inbox, &["--accept", "all", "--once"]);
        let send = receiver.sender(&[&source.display().to_string()]).output().unwrap();
        assert_eq!(send.status.code(), Some(0), "{round}: {}", stderr(&send));
        let file = await_event(&mut receiver.lines, "file");
        let path = PathBuf::from(file["path"].as_str().unwrap());
        assert_eq!(path.parent().unwrap(), inbox);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.to_string_lossy().contains("(1)"), round == 1, "{path:?}");
        let (code, text) = receiver.end();
        assert_eq!(code, Some(0), "{text}");
        for said in [text, stderr(&send)] {
            assert!(!said.contains('\x1b') && !said.contains('\u{202E}'), "{said:?}");
        }
    }
}

#[test]
fn what_cannot_be_sent_or_received_says_so_with_its_exit_code() {
    let folder = Folder::new("refusals");
    let note = folder.file("note.txt", "hello", 0o644).display().to_string();
    let serverless = ["--serverless", "127.0.0.1:0"];
    let missing = ["send", "a@b.example", "/nonexistent/file"];
    refused(&[&missing[..], &serverless].concat(), 11, &["/nonexistent/file", "no such file"]);
    let nothing = folder.0.join("nothing");
    std::fs::create_dir_all(&nothing).unwrap();
    refused(&[&["send", "a@b.example", &nothing.display().to_string()][..], &serverless].concat(), 11, &["no file"]);
    refused(&["send", "a@b.example", &note], 3, &["error: no account", "--account"]);
    refused(&[&["receive", "--dir", &note][..], &serverless].concat(), 11, &["note.txt"]);
    // Larger than is allowed there.
    let inbox = folder.0.join("in");
    let receiver = Receiver::start(&inbox, &["--accept", "all", "--max-size", "4", "--once"]);
    let send = receiver.sender(&[&note]).output().unwrap();
    assert_eq!(send.status.code(), Some(12), "{}", stderr(&send));
    assert!(stderr(&send).contains("larger than is allowed"), "{}", stderr(&send));
    let (code, text) = receiver.end();
    assert_eq!(code, Some(12), "{text}");
    assert!(text.contains("--max-size"), "{text}");
    assert_eq!(std::fs::read_dir(&inbox).unwrap().count(), 0, "a refused offer leaves nothing");
}

#[test]
fn a_transfer_that_is_killed_goes_on_where_it_ended() {
    let folder = Folder::new("resume");
    let source = folder.0.join("big.bin");
    let big = noise(12_000_000);
    std::fs::write(&source, &big).unwrap();
    let (source, inbox) = (source.display().to_string(), folder.0.join("in"));
    let mut receiver = Receiver::start(&inbox, &["--accept", "all"]);
    let mut send =
        receiver.sender(&[&source, "--transport", "ibb"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    loop {
        let progress = await_event(&mut receiver.lines, "progress");
        if progress["bytes"].as_u64().unwrap() > 1_000_000 {
            assert_eq!(progress["total"], 12_000_000);
            break;
        }
    }
    // `timeout` ends with its child, and its child with it.
    let pid = receiver.child.id().to_string();
    Command::new("pkill").args(["-KILL", "-P", &pid]).status().unwrap();
    receiver.end();
    assert!(!inbox.join("big.bin").exists(), "nothing has its final name before its hash is right");
    Command::new("kill").args(["-INT", &send.id().to_string()]).status().unwrap();
    assert_eq!(send.wait().unwrap().code(), Some(130), "Ctrl-C ends the waiting too");
    let receiver = Receiver::start(&inbox, &["--accept", "all", "--once"]);
    let again = receiver.sender(&[&source]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    let text = stdout(&again);
    let accepted = await_event(&mut text.lines().map(|l| Ok(l.to_owned())), "accepted");
    assert!(accepted["offset"].as_u64().unwrap() > 1_000_000 - 300_000, "{accepted}");
    assert_eq!(receiver.end().0, Some(0));
    assert!(std::fs::read(inbox.join("big.bin")).unwrap() == big);
    assert_eq!(std::fs::read_dir(&inbox).unwrap().count(), 1, "the part is gone");
}

#[test]
fn ctrl_c_cancels_on_both_sides_and_keeps_what_has_arrived() {
    let folder = Folder::new("cancel");
    let source = folder.0.join("big.bin");
    std::fs::write(&source, noise(12_000_000)).unwrap();
    let inbox = folder.0.join("in");
    let mut receiver = Receiver::start(&inbox, &["--accept", "all", "--once"]);
    let mut send = receiver
        .sender(&[&source.display().to_string(), "--transport", "ibb"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    await_event(&mut receiver.lines, "connected");
    while await_event(&mut receiver.lines, "progress")["bytes"].as_u64().unwrap() == 0 {}
    Command::new("kill").args(["-INT", &send.id().to_string()]).status().unwrap();
    assert_eq!(send.wait().unwrap().code(), Some(130));
    let ended = await_event(&mut receiver.lines, "ended");
    assert_eq!((&ended["reason"], &ended["by"]), (&"cancel".into(), &"remote".into()), "{ended}");
    let (code, text) = receiver.end();
    assert_eq!(code, Some(7), "{text}");
    assert!(!inbox.join("big.bin").exists() && inbox.join("big.bin.part").exists());
}

/// Joins its own address with `to`; the first connection is cut after `cut_after` bytes towards `to`.
fn cutting_proxy(to: String, cut_after: usize) -> String {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let copy = |mut from: TcpStream, mut into: TcpStream, mut left: usize| {
        let mut block = vec![0; 16 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut block) {
            left = left.saturating_sub(bytes);
            if left == 0 || into.write_all(&block[..bytes]).is_err() {
                break;
            }
        }
        // The other end may be gone already.
        let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
    };
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let Ok(client) = client else { return };
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let (client_again, server_again) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let limit = if number == 0 { cut_after } else { usize::MAX };
            std::thread::spawn(move || copy(client, server, limit));
            std::thread::spawn(move || copy(server_again, client_again, usize::MAX));
        }
    });
    addr
}

#[test]
fn a_connection_lost_in_the_middle_is_taken_up_again_without_asking() {
    let folder = Folder::new("retry");
    let (first, second) = (noise(40_000), noise(3_000_000));
    std::fs::write(folder.0.join("first.bin"), &first).unwrap();
    std::fs::write(folder.0.join("second.bin"), &second).unwrap();
    let files = ["first.bin", "second.bin"].map(|name| folder.0.join(name).display().to_string());
    let inbox = folder.0.join("in");
    let mut receiver = Receiver::start(&inbox, &["--accept", "all", "--once"]);
    receiver.addr = cutting_proxy(receiver.addr, 2_000_000);
    let send = receiver.sender(&[&files[0], &files[1], "--transport", "ibb"]).output().unwrap();
    assert_eq!(send.status.code(), Some(0), "{}", stderr(&send));
    let said = stdout(&send);
    let mut lines = said.lines().map(|l| Ok(l.to_owned()));
    assert_eq!(await_event(&mut lines, "retry")["files"], 1, "{said}");
    // What is there is not sent again, but for what was on its way.
    let offset = await_event(&mut lines, "accepted")["offset"].as_u64().unwrap();
    assert!((500_000..2_000_000).contains(&offset), "{said}");
    let (code, text) = receiver.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(std::fs::read(inbox.join("first.bin")).unwrap() == first);
    assert!(std::fs::read(inbox.join("second.bin")).unwrap() == second);
    assert_eq!(std::fs::read_dir(&inbox).unwrap().count(), 2);
}
