//! What is printed: short lines for people on stderr, JSON lines for scripts on stdout. Text from the network is escaped.

use super::args::{Global, LogFormat, When};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// Where output goes.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    color: bool,
    terminal: bool,
    /// Events with their JIDs and addresses go into the log too.
    log_addresses: bool,
}

/// Control and bidirectional characters of somebody else's text become visible escapes (threat: terminal injection).
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let bidi =
            matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        let invisible = matches!(c, '\u{200B}'..='\u{200D}' | '\u{2028}' | '\u{2029}' | '\u{FEFF}');
        if c.is_control() || bidi || invisible {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let color = match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
        };
        Self { json: global.json, quiet: global.quiet, color, terminal, log_addresses: global.log_addresses }
    }

    /// Says nothing to anybody.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self { json: false, quiet: true, color: false, terminal: false, log_addresses: false }
    }

    /// True if a live line may be redrawn.
    pub(crate) fn live(&self) -> bool {
        self.terminal && !self.quiet && !self.json
    }

    pub(crate) fn start_logging(&self, global: &Global) {
        let level = match (global.quiet, global.verbose) {
            (true, _) => "error",
            (false, 0) => "warn",
            (false, 1) => "offhook=info,warn",
            (false, 2) => "offhook=debug,info",
            (false, _) => "offhook=trace,debug",
        };
        let filter = EnvFilter::try_from_env("OFFHOOK_LOG").unwrap_or_else(|_| EnvFilter::new(level));
        let builder =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(self.color);
        // A second subscriber can only be a test's.
        let _ = match global.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
    }

    /// One thing that happened: a JSON line for scripts, `line` for people.
    pub(crate) fn event(&self, name: &str, fields: Value, line: &str) {
        if self.log_addresses {
            tracing::info!(event = name, %fields, "event");
        }
        if self.json {
            let mut object = json!({ "v": 1, "event": name });
            if let (Some(all), Value::Object(more)) = (object.as_object_mut(), fields) {
                all.extend(more);
            }
            let mut stdout = std::io::stdout().lock();
            // A script that has stopped reading is not told so.
            let _ = writeln!(stdout, "{object}");
            let _ = stdout.flush();
        }
        if !line.is_empty() {
            self.line(line);
        }
    }

    /// A line for people.
    pub(crate) fn line(&self, text: &str) {
        if !self.quiet {
            let clear = if self.live() { "\r\x1b[K" } else { "" };
            // A closed stderr cannot be reported.
            let end = if self.live() { "\r" } else { "" };
            let _ = writeln!(std::io::stderr(), "{clear}{text}{end}");
        }
    }

    /// A line that the next one replaces; only on a terminal.
    pub(crate) fn status(&self, text: &str) {
        if self.live() {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "\r\x1b[K{text}");
            let _ = stderr.flush();
        }
    }

    pub(crate) fn warning(&self, text: &str) {
        let word = if self.color { "\x1b[33mwarning:\x1b[0m" } else { "warning:" };
        let _ = writeln!(std::io::stderr(), "{word} {text}");
    }

    pub(crate) fn error(&self, text: &str) {
        let word = if self.color { "\x1b[31merror:\x1b[0m" } else { "error:" };
        let _ = writeln!(std::io::stderr(), "{word} {text}");
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn escape_sequences_and_direction_marks_of_a_peer_become_visible() {
        assert_eq!(escaped("a\x1b[2Jb\u{202E}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
        assert_eq!(escaped("Zoë 😀 日本"), "Zoë 😀 日本");
    }
}
