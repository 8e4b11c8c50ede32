//! SIP transactions and the carrier above them, in virtual time.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]
#![allow(clippy::collapsible_match)]

#[path = "sip_transactions/carrier.rs"]
mod carrier;
#[path = "sip_transactions/machines.rs"]
mod machines;
#[path = "sip_transactions/messages.rs"]
mod messages;
#[path = "sip_transactions/rough.rs"]
mod rough;
#[path = "sip_transactions/world.rs"]
mod world;
