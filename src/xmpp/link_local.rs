//! link_local
