//! How much peers may have us keep (threat: INVITE flood). Read RFC 3261 §21.5.4 before touching this file.

use crate::config::SipLimits;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Whose account a transaction is on: requests inside dialogs have one for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account {
    in_dialog: bool,
    source: IpAddr,
}

impl Account {
    /// One account for a whole IPv6 network of the size that a single customer has.
    pub(super) fn of(source: IpAddr, in_dialog: bool) -> Self {
        let source = match source.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX))),
        };
        Self { in_dialog, source }
    }
}

/// The open transactions: those not answered with success.
#[derive(Debug, Default)]
pub(super) struct Load {
    accounts: BTreeMap<Account, usize>,
    outside: usize,
    inside: usize,
}

impl Load {
    /// True if one more may be opened.
    pub(super) fn admits(&self, account: Account, limits: &SipLimits) -> bool {
        let all = if account.in_dialog { self.inside } else { self.outside };
        let own = self.accounts.get(&account).copied().unwrap_or_default();
        all < limits.open / 2 && own < limits.open_per_source
    }

    pub(super) fn open(&mut self, account: Account) {
        *self.accounts.entry(account).or_default() += 1;
        *if account.in_dialog { &mut self.inside } else { &mut self.outside } += 1;
    }

    pub(super) fn close(&mut self, account: Account) {
        let all = if account.in_dialog { &mut self.inside } else { &mut self.outside };
        *all = all.saturating_sub(1);
        if let Some(own) = self.accounts.get_mut(&account) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.accounts.remove(&account);
            }
        }
    }

    /// Accounts that are remembered: none without an open transaction.
    pub(super) fn sources(&self) -> usize {
        self.accounts.len()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.outside + self.inside
    }
}
