//! Which action is legal when, and from whom: the table of XEP-0166 §5.1 and §7.2 as data.
//! Read both sections before touching this file.

use crate::fault::PeerFault;
use crate::jingle::session::{Phase, Role};
use crate::wire::jingle::Action;

/// One cell of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The action's own rules decide.
    Legal,
    /// Legal if the receiver has a content-add pending that this answers; out-of-order else.
    AnswersAdd,
    /// Legal if the receiver has a transport-replace pending that this answers; out-of-order else.
    AnswersReplace,
    /// Both sides offered under this sid: the tie-break of XEP-0166 §7.2.16 decides.
    Tie,
    /// Answered with this.
    Refused(PeerFault),
}

/// One row: the action and what it meets in NONE, PENDING from the initiator, PENDING from the responder, ACTIVE from
/// the initiator, ACTIVE from the responder, ENDED.
type Row = (Action, [Verdict; 6]);

const OK: Verdict = Verdict::Legal;
const ADD: Verdict = Verdict::AnswersAdd;
const REPL: Verdict = Verdict::AnswersReplace;
const TIE: Verdict = Verdict::Tie;
const OOO: Verdict = Verdict::Refused(PeerFault::OutOfOrder);
const UNK: Verdict = Verdict::Refused(PeerFault::UnknownSession);

/// The rows, in the order of [`Action::ALL`]. security-info is missing from the diagram of §5.1 but in the list of §7.2:
/// it is legal wherever description-info is. A sid that has ended is not used again (J166-68): out-of-order.
#[rustfmt::skip]
pub const TABLE: [Row; 15] = [
    //                           NONE  P from I  P from R  A from I  A from R  ENDED
    (Action::ContentAccept,    [ UNK,  ADD,      ADD,      ADD,      ADD,      UNK ]),
    (Action::ContentAdd,       [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::ContentModify,    [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::ContentReject,    [ UNK,  ADD,      ADD,      ADD,      ADD,      UNK ]),
    (Action::ContentRemove,    [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::DescriptionInfo,  [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::SecurityInfo,     [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::SessionAccept,    [ UNK,  OOO,      OK,       OOO,      OOO,      UNK ]),
    (Action::SessionInfo,      [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::SessionInitiate,  [ OK,   OOO,      TIE,      OOO,      OOO,      OOO ]),
    (Action::SessionTerminate, [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::TransportAccept,  [ UNK,  REPL,     REPL,     REPL,     REPL,     UNK ]),
    (Action::TransportInfo,    [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
    (Action::TransportReject,  [ UNK,  REPL,     REPL,     REPL,     REPL,     UNK ]),
    (Action::TransportReplace, [ UNK,  OK,       OK,       OK,       OK,       UNK ]),
];

/// What an action meets in a phase, sent by the side in `sender`.
#[must_use]
pub fn verdict(action: Action, phase: Phase, sender: Role) -> Verdict {
    let column = match (phase, sender) {
        (Phase::None, _) => 0,
        (Phase::Pending, Role::Initiator) => 1,
        (Phase::Pending, Role::Responder) => 2,
        (Phase::Active, Role::Initiator) => 3,
        (Phase::Active, Role::Responder) => 4,
        (Phase::Ended, _) => 5,
    };
    TABLE.iter().find(|(named, _)| *named == action).and_then(|(_, cells)| cells.get(column)).copied().unwrap_or(UNK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_action_has_its_row_in_the_order_of_the_standard() {
        for (row, action) in TABLE.iter().zip(Action::ALL) {
            assert_eq!(row.0, *action);
        }
        assert_eq!(TABLE.len(), Action::ALL.len());
    }

    #[test]
    fn without_a_session_only_session_initiate_is_known() {
        for action in Action::ALL {
            let expected = if *action == Action::SessionInitiate { OK } else { UNK };
            for sender in [Role::Initiator, Role::Responder] {
                assert_eq!(verdict(*action, Phase::None, sender), expected, "{action}");
            }
        }
    }

    #[test]
    fn only_the_responder_accepts_and_only_once() {
        assert_eq!(verdict(Action::SessionAccept, Phase::Pending, Role::Responder), OK);
        for (phase, sender) in
            [(Phase::Pending, Role::Initiator), (Phase::Active, Role::Initiator), (Phase::Active, Role::Responder)]
        {
            assert_eq!(verdict(Action::SessionAccept, phase, sender), OOO);
        }
    }
}
