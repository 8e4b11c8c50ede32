//! INVITE sessions in virtual time: every rule by hand-made messages, two user agents over a network that loses, and
//! generated operations beside a model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]

#[path = "sip_in_virtual_time/phone.rs"]
mod phone;

#[path = "sip_in_virtual_time/called.rs"]
mod called;
#[path = "sip_in_virtual_time/calling.rs"]
mod calling;
#[path = "sip_in_virtual_time/changing.rs"]
mod changing;
#[path = "sip_in_virtual_time/operations.rs"]
mod operations;
#[path = "sip_in_virtual_time/transferring.rs"]
mod transferring;
#[path = "sip_in_virtual_time/wire.rs"]
mod wire;
