//! Calls that are sent elsewhere: by us, and by the other side. Read RFC 3515, RFC 3891, RFC 3892 and RFC 5589 §6 before
//! touching this file.

use super::super::event::{CallId, Event, Party, TransferStep};
use super::super::{Endpoint, Misuse};
use super::calling::name_of;
use crate::sip::session::{self, ReferralId};
use crate::wire::address::{Address, SipAddress};
use crate::wire::sip::{NameAddr, Replaces, Status, Uri};
use std::time::Instant;

impl Endpoint {
    /// Asks the other side to call `to` instead of us.
    pub(in super::super) fn transfer_line(&mut self, now: Instant, id: CallId, to: SipAddress) -> Result<(), Misuse> {
        let (session, line) = self.up(id)?;
        let target = NameAddr { display: to.display.clone(), ..NameAddr::new(to.uri.clone()) };
        let to = Address::Sip(Box::new(to));
        line.transfer_to = Some(to.clone());
        self.act_on(now, |sessions, now| sessions.refer(now, session, target))?;
        self.emit(Event::Transfer { call: id, by: Party::Local, to, step: TransferStep::Asked, next: None });
        self.pump(now);
        Ok(())
    }

    /// A transfer of ours went on.
    pub(super) fn follow_transfer(&mut self, now: Instant, id: CallId, step: &session::TransferStep) {
        let Some(line) = self.line(id) else { return };
        let Some(to) = line.transfer_to.clone() else { return };
        let step = match step {
            session::TransferStep::Accepted | session::TransferStep::Progress(_) => TransferStep::Trying,
            session::TransferStep::AcceptedSilently => TransferStep::Done,
            session::TransferStep::Finished(status) if status.is_success() => TransferStep::Done,
            session::TransferStep::Finished(_) | session::TransferStep::Refused(_) => TransferStep::Failed,
        };
        let over = matches!(step, TransferStep::Done | TransferStep::Failed);
        if over {
            line.transfer_to = None;
        }
        self.emit(Event::Transfer { call: id, by: Party::Local, to, step, next: None });
        if step == TransferStep::Done {
            // RFC 5589 §6.1: who transferred hangs up; the other side may have done so already.
            let _ = self.put_down(now, id);
        }
    }

    /// The other side asks us to call somebody. That may cost money, so it is done only where the configuration says so.
    pub(super) fn handle_referral(
        &mut self,
        now: Instant,
        id: CallId,
        referral: ReferralId,
        to: NameAddr,
        replaces: Option<Box<Replaces>>,
        referred_by: Option<Box<NameAddr>>,
    ) {
        let Some(session) = self.line(id).and_then(|line| line.session) else { return };
        let follows = self.follows(&to.uri);
        let begun = if follows { self.begin(now, to.clone()) } else { Err(Misuse::WrongNetwork) };
        let Ok(next) = begun else {
            tracing::info!(call = id.0, follows, "a transfer is refused");
            let _ = self.act_on(now, |sessions, now| sessions.refuse_referral(now, session, referral, Status::DECLINE));
            return;
        };
        let _ = self.act_on(now, |sessions, now| sessions.take_referral(now, session, referral));
        if let Some(line) = self.line(next) {
            line.referral = Some((id, referral));
            if let Some(invitation) = &mut line.invitation {
                invitation.replaces = replaces.map(|replaces| *replaces);
                invitation.referred_by = referred_by.map(|by| *by);
            }
        }
        let (to, step) = (name_of(&to), TransferStep::Trying);
        self.emit(Event::Transfer { call: id, by: Party::Remote, to, step, next: Some(next) });
    }

    fn follows(&self, to: &Uri) -> bool {
        let Some(telephone) = &self.telephone else { return false };
        let host = to.host().map(ToString::to_string);
        host.is_some_and(|host| telephone.follow_to.iter().any(|known| known.eq_ignore_ascii_case(&host)))
    }

    /// What became of a call that the other side of another call asked for (RFC 3515 §2.4.4).
    pub(super) fn tell_referrer(&mut self, now: Instant, id: CallId, status: Status) {
        let Some((from, referral)) = self.line(id).and_then(|line| line.referral) else { return };
        let Some(session) = self.line(from).and_then(|line| line.session) else { return };
        // The other side may have hung up already.
        let _ = self.act_on(now, |sessions, now| sessions.notify_referral(now, session, referral, status));
    }
}
