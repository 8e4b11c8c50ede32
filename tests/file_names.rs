//! Names that peers have chosen, or could (threats: file name traversal, overwrite, device names, control and bidi
//! characters; J234-06). Each becomes a file in a directory, beside which nothing may appear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use offhook::file::name::{flattened, safe_name};
use proptest::prelude::*;
use std::path::Path;

/// What a peer says, and what becomes of it.
const NAMES: &[(&str, &str)] = &[
    // Harmless ones stay as they are.
    ("photo.jpg", "photo.jpg"),
    ("Grüße aus Köln.txt", "Grüße aus Köln.txt"),
    ("写真 2024.png", "写真 2024.png"),
    ("фото.jpeg", "фото.jpeg"),
    ("صورة.png", "صورة.png"),
    ("תמונה.png", "תמונה.png"),
    ("👩‍👩‍👧 family.jpg", "👩‍👩‍👧 family.jpg"),
    ("می‌خواهم.txt", "می‌خواهم.txt"),
    ("a", "a"),
    ("no extension", "no extension"),
    ("archive.tar.gz", "archive.tar.gz"),
    ("a.b.c.d", "a.b.c.d"),
    ("it's; rm -rf $HOME & `id`.txt", "it's; rm -rf $HOME & `id`.txt"),
    ("100%.txt", "100%.txt"),
    ("#1!~+=@[](){}^,.txt", "#1!~+=@[](){}^,.txt"),
    ("~root", "~root"),
    // Paths of Unix.
    ("/etc/passwd", "passwd"),
    ("../../etc/passwd", "passwd"),
    ("../evil", "evil"),
    ("./evil", "evil"),
    ("a/b/c.txt", "c.txt"),
    ("a/", "a"),
    ("a//", "a"),
    ("a/ ", "a"),
    ("/", "file"),
    ("//", "file"),
    ("//server/share/x", "x"),
    ("..", "file"),
    (".", "file"),
    ("...", "file"),
    ("../..", "file"),
    ("../", "file"),
    ("a/..", "file"),
    ("a/.", "file"),
    ("/dev/null", "null"),
    ("/dev/sda", "sda"),
    ("/proc/self/mem", "mem"),
    ("~/.bashrc", "bashrc"),
    ("~/.ssh/authorized_keys", "authorized_keys"),
    ("....//....//etc/shadow", "shadow"),
    ("..;/evil", "evil"),
    ("%2e%2e%2fevil", "%2e%2e%2fevil"),
    ("..%2f..%2fevil", "%2f..%2fevil"),
    ("file:///etc/passwd", "passwd"),
    ("http://example.org/x?y=1", "x_y=1"),
    // Paths of Windows.
    ("..\\..\\windows\\system32\\evil.dll", "evil.dll"),
    ("C:\\Windows\\win.ini", "win.ini"),
    ("C:evil.txt", "C_evil.txt"),
    ("C:", "C_"),
    ("\\\\server\\share\\x.txt", "x.txt"),
    ("\\\\?\\C:\\x", "x"),
    ("\\\\.\\PhysicalDrive0", "PhysicalDrive0"),
    ("..\\", "file"),
    ("\\", "file"),
    ("a\\b/c\\d", "d"),
    ("..\\../..\\x", "x"),
    ("x.txt:stream", "x.txt_stream"),
    ("x.txt::$DATA", "x.txt__$DATA"),
    ("a<b>c:d\"e|f?g*h", "a_b_c_d_e_f_g_h"),
    // Devices of Windows.
    ("CON", "_CON"),
    ("con", "_con"),
    ("Con.txt", "_Con.txt"),
    ("CON.tar.gz", "_CON.tar.gz"),
    ("CON .txt", "_CON .txt"),
    ("PRN", "_PRN"),
    ("AUX", "_AUX"),
    ("aux.c", "_aux.c"),
    ("NUL", "_NUL"),
    ("NUL.txt", "_NUL.txt"),
    ("nul.", "_nul"),
    ("nul ", "_nul"),
    ("nul. . .", "_nul"),
    ("COM0", "_COM0"),
    ("COM1", "_COM1"),
    ("com9.log", "_com9.log"),
    ("COM¹", "_COM¹"),
    ("COM²", "_COM²"),
    ("COM³.x", "_COM³.x"),
    ("LPT1", "_LPT1"),
    ("lpt9.prn", "_lpt9.prn"),
    ("LPT³", "_LPT³"),
    ("CONIN$", "_CONIN$"),
    ("conout$", "_conout$"),
    ("CLOCK$", "_CLOCK$"),
    ("a/CON", "_CON"),
    ("C:\\NUL", "_NUL"),
    (".CON", "_CON"),
    ("-CON", "_CON"),
    ("C\u{200b}ON", "_CON"),
    ("CON\u{202e}", "_CON"),
    ("NUL\0", "_NUL"),
    ("COM10", "COM10"),
    ("CONSOLE", "CONSOLE"),
    ("COM", "COM"),
    ("null.txt", "null.txt"),
    // Control characters.
    ("a\0b", "ab"),
    ("evil.exe\0.jpg", "evil.exe.jpg"),
    ("\0", "file"),
    ("a\nb", "ab"),
    ("a\rb", "ab"),
    ("a\tb", "ab"),
    ("a\u{7f}b", "ab"),
    ("a\u{85}b", "ab"),
    ("a\u{9b}31mb", "a31mb"),
    ("\u{1b}[31mred\u{1b}[0m.txt", "[31mred[0m.txt"),
    ("\u{1b}]0;title\u{7}x", "]0;titlex"),
    ("\u{1b}[2J\u{1b}[H", "[2J[H"),
    ("\u{1b}P0;0|17/41\u{1b}\\x", "x"),
    ("\u{1}\u{2}\u{3}", "file"),
    ("..\u{1}/..\u{1}/x", "x"),
    (".\u{1}.", "file"),
    (".\0./x", "x"),
    ("\u{8}\u{8}\u{8}x", "x"),
    ("\u{9d}0;x\u{9c}y", "0;xy"),
    // Bidi and invisible characters.
    ("exe.\u{202e}gpj.doc", "exe.gpj.doc"),
    ("invoice\u{202e}fdp.exe", "invoicefdp.exe"),
    ("\u{202a}x\u{202c}", "x"),
    ("\u{202b}x", "x"),
    ("\u{202d}x", "x"),
    ("\u{2066}x\u{2069}", "x"),
    ("\u{2067}x", "x"),
    ("\u{2068}x", "x"),
    ("\u{200e}x\u{200f}", "x"),
    ("\u{61c}x", "x"),
    ("\u{200b}", "file"),
    ("\u{feff}x", "x"),
    ("a\u{ad}b", "ab"),
    ("a\u{2060}b", "ab"),
    ("a\u{2028}b\u{2029}c", "abc"),
    ("a\u{180e}b", "ab"),
    ("a\u{fff9}b\u{fffa}c\u{fffb}", "abc"),
    ("a\u{fffe}b\u{ffff}", "ab"),
    ("a\u{e0041}b", "ab"),
    ("a\u{1d173}b", "ab"),
    (".\u{200b}.", "file"),
    ("\u{200b}.bashrc", "bashrc"),
    ("\u{202e}-rf", "rf"),
    // Leading and trailing characters.
    (".bashrc", "bashrc"),
    ("..bashrc", "bashrc"),
    (".htaccess", "htaccess"),
    (". .x", "x"),
    ("-rf", "rf"),
    ("--help", "help"),
    ("-", "file"),
    ("--", "file"),
    ("-.-.-", "file"),
    (" -rf", "rf"),
    ("- -x", "x"),
    (" x ", "x"),
    ("\u{a0}x\u{a0}", "x"),
    ("\u{3000}x\u{3000}", "x"),
    ("x.", "x"),
    ("x...", "x"),
    ("x. . .", "x"),
    ("x ", "x"),
    ("x.txt.", "x.txt"),
    ("x.txt ", "x.txt"),
    ("", "file"),
    (" ", "file"),
    ("   ", "file"),
    ("\u{a0}", "file"),
    // Names that programs give a meaning.
    ("desktop.ini", "desktop.ini"),
    ("autorun.inf", "autorun.inf"),
    ("x.lnk", "x.lnk"),
    ("x.desktop", "x.desktop"),
    (".x.part.offhook", "x.part.offhook"),
    ("x.part", "x.part"),
    (".x.part.offhook~", "x.part.offhook~"),
    ("x (1).txt", "x (1).txt"),
    ("*", "_"),
    ("?", "_"),
    ("x\"y", "x_y"),
    ("x|y", "x_y"),
    // Look-alikes of separators are no separators.
    ("..\u{2215}x", "\u{2215}x"),
    ("..\u{ff0f}x", "\u{ff0f}x"),
    ("AC\u{ff0f}DC.mp3", "AC\u{ff0f}DC.mp3"),
    ("..\u{2044}x", "\u{2044}x"),
    ("\u{ff0e}\u{ff0e}/x", "x"),
    ("\u{2024}\u{2024}", "\u{2024}\u{2024}"),
    ("\u{200d}", "file"),
    ("\u{200c}\u{fe0f}.", "file"),
    // Combining characters and replacement characters.
    ("e\u{301}.txt", "e\u{301}.txt"),
    ("\u{301}", "\u{301}"),
    ("\u{fffd}.txt", "\u{fffd}.txt"),
    ("z\u{335}\u{321}\u{322}a\u{334}lgo", "z\u{335}\u{321}\u{322}a\u{334}lgo"),
    ("\u{fe0f}x", "\u{fe0f}x"),
];

/// Long ones, whose result is told by rules.
fn long_names() -> Vec<String> {
    let mut names = Vec::new();
    for filling in ["x", "ä", "写", "👩", "x.", "x ", "a/", "..\\", "\u{202e}", "."] {
        for extension in ["", ".jpg", ".tar.gz", ".an-extension-that-is-longer-than-any-that-people-use"] {
            names.push(filling.repeat(300) + extension);
        }
    }
    names.push("x".repeat(251) + ".jpg");
    names.push("x".repeat(255));
    names.push("x".repeat(256));
    names.push(format!("CON.{}", "x".repeat(300)));
    names.push("x".repeat(100_000));
    names
}

fn is_harmless(name: &str) -> bool {
    let shown = name.chars().all(|c| !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c) && c != '\u{200b}');
    (1..=255).contains(&name.len())
        && shown
        && !name.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|'])
        && !name.starts_with(['.', '-', ' '])
        && !name.ends_with(['.', ' '])
        && Path::new(name).components().count() == 1
}

#[test]
fn each_hostile_name_becomes_the_harmless_one_that_is_written_beside_it() {
    for (said, made) in NAMES {
        assert_eq!(safe_name(said).as_str(), *made, "{said:?}");
        assert!(is_harmless(made), "{made:?}");
    }
    assert!(NAMES.len() + long_names().len() >= 200, "{}", NAMES.len());
}

#[test]
fn names_of_300_bytes_are_cut_between_characters_and_keep_their_extension() {
    for name in long_names() {
        let made = safe_name(&name);
        assert!(is_harmless(made.as_str()), "{name:?} became {made:?}");
        for number in [1, 999] {
            let numbered = made.numbered(number);
            assert!(is_harmless(numbered.as_str()) && numbered.as_str().contains(&format!(" ({number})")), "{made:?}");
        }
        // The sidecar is replaced by way of a name with one byte more.
        assert!(made.part().len() <= 255 && made.sidecar().len() < 255, "{made:?}");
        let third = made.part_numbered(3);
        assert!(is_harmless(third.as_str()) && third.part().contains(" (3)") && third.sidecar().len() < 255);
    }
    assert!(safe_name(&("x".repeat(300) + ".jpg")).as_str().ends_with("xxx.jpg"));
    assert!(safe_name(&("写".repeat(300) + ".tar.gz")).as_str().ends_with("写.tar.gz"));
    assert_eq!(safe_name(&("ä".repeat(300) + ".jpg")).as_str().len(), 254);
}

#[test]
fn a_number_goes_before_the_extension() {
    assert_eq!(safe_name("a.jpg").numbered(0).as_str(), "a.jpg");
    assert_eq!(safe_name("a.jpg").numbered(1).as_str(), "a (1).jpg");
    assert_eq!(safe_name("a.tar.gz").numbered(2).as_str(), "a (2).tar.gz");
    assert_eq!(safe_name("a").numbered(3).as_str(), "a (3)");
    assert_eq!(safe_name("a.jpg").part(), "a.jpg.part");
    assert_eq!(safe_name("a.jpg").sidecar(), ".a.jpg.part.offhook");
}

#[test]
fn the_path_inside_a_directory_becomes_one_name() {
    assert_eq!(flattened(["photos", "2024", "a.jpg"]).as_str(), "photos_2024_a.jpg");
    assert_eq!(flattened(["a\\b", "c/d"]).as_str(), "a_b_c_d");
    assert_eq!(flattened([".git", "config"]).as_str(), "git_config");
}

#[cfg(unix)]
#[test]
fn no_name_leaves_the_directory_or_replaces_a_file_in_it() {
    use offhook::file::part::Identity;
    use offhook::file::{FileJob, Verdict};
    use offhook::io::disk::{FileReport, FileWorker, Inbox};
    let outside = std::env::temp_dir().join(format!("offhook-names-{}", std::process::id()));
    let inside = outside.join("in").join("box");
    std::fs::create_dir_all(&inside).unwrap();
    let inbox = Inbox::open(&inside).unwrap();
    let mut expected = 0;
    for said in NAMES.iter().map(|(said, _)| (*said).to_owned()).chain(long_names()) {
        let identity = Identity { name: said.clone(), size: Some(1), ..Default::default() };
        let part = inbox.part(&identity).unwrap();
        let (reports, told) = std::sync::mpsc::channel();
        let job = FileJob::Receive { offset: 0, size: Some(1), limit: None, hashes: Vec::new() };
        let worker = FileWorker::receive(part, job, move |r| drop(reports.send(r))).unwrap();
        worker.write(vec![b'x']);
        assert_eq!(told.recv().unwrap(), FileReport::Written(1));
        assert!(matches!(told.recv().unwrap(), FileReport::Carried(Ok(_))));
        worker.judge(Verdict::Keep);
        let FileReport::Kept(path) = told.recv().unwrap() else { panic!("{said:?} was not kept") };
        assert_eq!(path.parent(), Some(inside.as_path()), "{said:?}");
        assert!(is_harmless(path.file_name().unwrap().to_str().unwrap()), "{said:?}");
        expected += 1;
    }
    let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
    assert_eq!((count(&outside), count(&outside.join("in")), count(&inside)), (1, 1, expected));
    std::fs::remove_dir_all(&outside).unwrap();
}

proptest! {
    #[test]
    fn whatever_a_peer_says_the_name_is_harmless_and_safe_names_stay(said in any::<String>()) {
        let made = safe_name(&said);
        prop_assert!(is_harmless(made.as_str()), "{:?}", made);
        prop_assert_eq!(safe_name(made.as_str()), made);
    }

    #[test]
    fn names_made_of_the_worst_characters_are_harmless(
        said in proptest::collection::vec(proptest::sample::select(
            vec![".", "..", "/", "\\", "-", " ", "\0", "\u{1b}", "CON", "NUL", ":", "ä", "写", "\u{202e}", "x", ".tar",
                 ".gz", "(1)", "\u{a0}", "COM1", "$", "\u{200d}"]), 0..200),
    ) {
        let made = safe_name(&said.concat());
        prop_assert!(is_harmless(made.as_str()), "{:?}", made);
        prop_assert_eq!(safe_name(made.as_str()), made);
    }
}
