//! Keys in a call: `m` mute, `h` hold, `t` and an address transfer, digits DTMF, `i` details, `q` hang up. Only on a terminal.

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Mute,
    Hold,
    /// What was typed after `t` so far.
    Typing(String),
    /// Where the other side is to be sent; empty: nowhere after all.
    Transfer(String),
    Digit(char),
    Details,
    HangUp,
    Interrupt,
    Answer,
}

/// How often the reading thread looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(100);

/// Reads keys while it lives; without a terminal it gives none.
#[derive(Debug)]
pub(super) struct Keys {
    keys: Option<mpsc::Receiver<Key>>,
    wanted: Arc<AtomicBool>,
}

impl Keys {
    pub(super) fn start() -> Self {
        let wanted = Arc::new(AtomicBool::new(true));
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !terminal || crossterm::terminal::enable_raw_mode().is_err() {
            return Self { keys: None, wanted };
        }
        let (pressed, keys) = mpsc::channel(32);
        let flag = Arc::clone(&wanted);
        std::thread::spawn(move || {
            let mut typed = None;
            while flag.load(Ordering::Relaxed) {
                if !event::poll(POLL).unwrap_or(false) {
                    continue;
                }
                if let Ok(Event::Key(key)) = event::read()
                    && key.kind == KeyEventKind::Press
                    && let Some(meaning) = read(&mut typed, key.code, key.modifiers)
                    && pressed.blocking_send(meaning).is_err()
                {
                    return;
                }
            }
        });
        Self { keys: Some(keys), wanted }
    }

    /// The next key; never returns without a terminal.
    pub(super) async fn next(&mut self) -> Key {
        if let Some(keys) = &mut self.keys
            && let Some(key) = keys.recv().await
        {
            return key;
        }
        std::future::pending().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
        if self.keys.is_some() {
            // The terminal may be gone.
            let _ = crossterm::terminal::disable_raw_mode();
        }
    }
}

/// Letters of an address at most.
const MOST_TYPED: usize = 256;

/// A key, or a letter of the address that is being typed.
fn read(typed: &mut Option<String>, code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    let Some(mut text) = typed.take() else {
        if code == KeyCode::Char('t') && !modifiers.contains(KeyModifiers::CONTROL) {
            *typed = Some(String::new());
            return Some(Key::Typing(String::new()));
        }
        return meaning(code, modifiers);
    };
    if let KeyCode::Char(c) = code {
        if modifiers.contains(KeyModifiers::CONTROL) {
            return meaning(code, modifiers);
        }
        if text.len() < MOST_TYPED {
            text.push(c);
        }
    } else if code == KeyCode::Esc {
        return Some(Key::Transfer(String::new()));
    } else if code == KeyCode::Enter {
        return Some(Key::Transfer(text));
    } else if code == KeyCode::Backspace {
        text.pop();
    }
    *typed = Some(text.clone());
    Some(Key::Typing(text))
}

fn meaning(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    let KeyCode::Char(c) = code else { return (code == KeyCode::Enter).then_some(Key::Answer) };
    // Raw mode hands Ctrl-C over as a key.
    if modifiers.contains(KeyModifiers::CONTROL) {
        return (c == 'c').then_some(Key::Interrupt);
    }
    Some(match c {
        'm' => Key::Mute,
        'h' => Key::Hold,
        'i' => Key::Details,
        'q' => Key::HangUp,
        'a' => Key::Answer,
        '0'..='9' | '*' | '#' => Key::Digit(c),
        'A'..='D' => Key::Digit(c),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_typed_between_t_and_enter() {
        let plain = KeyModifiers::NONE;
        let mut typed = None;
        let mut last = None;
        for code in [KeyCode::Char('t'), KeyCode::Char('6'), KeyCode::Char('h'), KeyCode::Backspace, KeyCode::Char('0')]
        {
            last = read(&mut typed, code, plain);
        }
        assert_eq!(last, Some(Key::Typing("60".to_owned())));
        assert_eq!(read(&mut typed, KeyCode::Enter, plain), Some(Key::Transfer("60".to_owned())));
        assert_eq!(read(&mut typed, KeyCode::Char('h'), plain), Some(Key::Hold));
        read(&mut typed, KeyCode::Char('t'), plain);
        assert_eq!(read(&mut typed, KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
    }

    #[test]
    fn keys_mean_what_the_manual_says() {
        let plain = KeyModifiers::NONE;
        assert_eq!(meaning(KeyCode::Char('m'), plain), Some(Key::Mute));
        assert_eq!(meaning(KeyCode::Char('5'), plain), Some(Key::Digit('5')));
        assert_eq!(meaning(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(meaning(KeyCode::Char('x'), plain), None);
    }
}
