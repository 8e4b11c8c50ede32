//! Calls as an application sees them.

use super::{CallStats, Connected, Ended, Frame, Party, ReasonCondition, TransferStep};
use crate::endpoint::Misuse;
use crate::endpoint::event::CallId;
use crate::error::Error;
use crate::io::driver::Command;
use crate::wire::address::Address;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Events of one call that wait for a slow application.
const CALL_EVENTS: usize = 256;
/// Frames heard that wait for a slow application: 200 ms.
const HEARD_FRAMES: usize = 10;

/// A call that rings here. Dropping it declines it.
#[derive(Debug)]
pub struct Incoming {
    /// Who calls; a JID with its device, a SIP address as the other side or its server tells it.
    pub from: Address,
    /// Session id.
    pub sid: String,
    /// `audio`, …
    pub media: Vec<String>,
    pub(super) call: Option<Call>,
}

impl Incoming {
    /// Takes the call: from here on media may be sent.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the caller has just given up.
    pub async fn accept(mut self) -> Result<Call, Error> {
        let call = self.call.take().ok_or(Error::Closed)?;
        call.ask(|reply| Command::Accept(call.id, reply)).await?;
        Ok(call)
    }

    /// Declines it.
    pub fn reject(mut self, reason: ReasonCondition) {
        if let Some(call) = self.call.take() {
            call.reject(reason);
        }
    }

    /// Waits until it is over by itself: the caller gave up, or another device took it.
    pub async fn over(&mut self) -> Option<Ended> {
        let call = self.call.as_mut()?;
        loop {
            match call.next_event().await {
                Some(CallEvent::Ended(ended)) => return Some(ended),
                Some(_) => {}
                None => return None,
            }
        }
    }
}

/// What happens in one call.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallEvent {
    /// The other side is being alerted.
    Ringing,
    /// Sound comes before the other side takes the call: an announcement, a ringing tone (SIP).
    EarlyMedia,
    /// Both sides want the call.
    Accepted,
    /// Media flows.
    Connected(Box<Connected>),
    /// Media moved to another pair of addresses.
    PathChanged {
        /// `host`, `srflx`, `prflx`, `relay` of both ends.
        kinds: (&'static str, &'static str),
        /// Both ends.
        path: crate::transport::path::Path,
    },
    /// The peer pressed a key.
    Digit(char),
    /// Hold began or ended.
    Hold {
        /// Began.
        on: bool,
        /// By whom.
        by: Party,
    },
    /// Mute began or ended.
    Mute {
        /// Began.
        on: bool,
        /// By whom.
        by: Party,
    },
    /// A transfer went on (SIP).
    Transfer {
        /// Who asked for it.
        by: Party,
        /// Where to.
        to: Address,
        /// How far it is.
        step: TransferStep,
        /// Where the other side sent us: our call there, which takes the place of this one.
        next: Option<Box<Call>>,
    },
    /// Nothing arrives although the call is connected; `false`: something arrives again.
    Silent(bool),
    /// The last event of a call.
    Ended(Ended),
}

/// Both ends of a call's events; the reading end until the application has taken the call.
#[derive(Debug)]
struct Slot {
    events: mpsc::Sender<CallEvent>,
    reader: Option<mpsc::Receiver<CallEvent>>,
}

impl Slot {
    fn new() -> Self {
        let (events, reader) = mpsc::channel(CALL_EVENTS);
        Self { events, reader: Some(reader) }
    }
}

/// Calls by their ids, from their first event or their handle until their last event.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls(Arc<Mutex<BTreeMap<CallId, Slot>>>);

impl Calls {
    /// The application's handle on a call whose events may already be coming.
    pub(super) fn attach(&self, commands: &mpsc::Sender<Command>, id: CallId) -> Call {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = known.entry(id).or_insert_with(Slot::new);
        let events = slot.reader.take().unwrap_or_else(|| mpsc::channel(1).1);
        if slot.events.is_closed() {
            known.remove(&id);
        }
        Call { id, commands: commands.clone(), events, over: false }
    }

    /// Hands an event to the call it belongs to.
    pub(super) fn deliver(&self, id: CallId, event: CallEvent) {
        let over = matches!(event, CallEvent::Ended(_));
        let sender = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = known.entry(id).or_insert_with(Slot::new);
            let sender = slot.events.clone();
            if over && slot.reader.is_none() {
                known.remove(&id);
            }
            sender
        };
        // The end is never lost; anything else is, once 256 events wait unread.
        if over {
            crate::io::driver::spawn(async move {
                // The application may have dropped the call.
                let _ = sender.send(event).await;
            });
        } else {
            let _ = sender.try_send(event);
        }
    }
}

/// A call. Dropping it hangs up.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<CallEvent>,
    over: bool,
}

impl Call {
    /// Names the call within this client.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// The next event; `None` after [`CallEvent::Ended`].
    pub async fn next_event(&mut self) -> Option<CallEvent> {
        if self.over {
            return None;
        }
        let event = self.events.recv().await;
        self.over = matches!(event, Some(CallEvent::Ended(_)) | None);
        event
    }

    /// Waits until media flows; gives what it runs on, or how the call ended instead.
    ///
    /// # Errors
    /// The end of a call that never connected; `None` when the client is gone.
    pub async fn connected(&mut self) -> Result<Box<Connected>, Option<Ended>> {
        loop {
            match self.next_event().await {
                Some(CallEvent::Connected(facts)) => return Ok(facts),
                Some(CallEvent::Ended(ended)) => return Err(Some(ended)),
                Some(_) => {}
                None => return Err(None),
            }
        }
    }

    /// Both ends of the sound: frames of 20 ms, 960 samples of 16 bits at 48 kHz mono.
    pub async fn audio(&self) -> (Speaker, mpsc::Receiver<Frame>) {
        let (heard, frames) = mpsc::channel(HEARD_FRAMES);
        // A closed client gives silence.
        let _ = self.commands.send(Command::Listen(self.id, heard)).await;
        (Speaker { id: self.id, commands: self.commands.clone() }, frames)
    }

    /// Ends the call.
    pub async fn hang_up(&self) {
        // A closed client has hung up.
        let _ = self.commands.send(Command::HangUp(self.id)).await;
    }

    /// Puts the peer on hold or takes it back.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn hold(&self, on: bool) -> Result<(), Error> {
        self.ask(|reply| Command::Hold(self.id, on, reply)).await
    }

    /// Mutes the microphone or opens it again.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn mute(&self, on: bool) -> Result<(), Error> {
        self.ask(|reply| Command::Mute(self.id, on, reply)).await
    }

    /// Sends a DTMF digit.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn send_dtmf(&self, digit: char) -> Result<(), Error> {
        self.ask(|reply| Command::Digit(self.id, digit, reply)).await
    }

    /// Sends the other side elsewhere (SIP); [`CallEvent::Transfer`] tells what becomes of it.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn transfer(&self, to: impl Into<Address>) -> Result<(), Error> {
        let to = to.into();
        self.ask(|reply| Command::Transfer(self.id, to, reply)).await
    }

    /// Figures so far; `None` before there is media.
    pub async fn stats(&self) -> Option<CallStats> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Stats(self.id, reply)).await.ok()?;
        answer.await.ok()?
    }

    fn reject(mut self, reason: ReasonCondition) {
        self.over = true;
        // A closed client has declined.
        let _ = self.commands.try_send(Command::Reject(self.id, reason));
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), Misuse>>) -> Command) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        Ok(answer.await.map_err(|_| Error::Closed)??)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            // A closed client has hung up.
            let _ = self.commands.try_send(Command::HangUp(self.id));
        }
    }
}

/// Where the microphone's frames go.
#[derive(Debug, Clone)]
pub struct Speaker {
    id: CallId,
    commands: mpsc::Sender<Command>,
}

impl Speaker {
    /// 20 ms of sound; sent when both sides have accepted, dropped before.
    pub async fn send(&self, frame: &Frame) {
        // A closed client sends nothing.
        let _ = self.commands.send(Command::Speak(self.id, Box::new(*frame))).await;
    }
}
