//! How to use this crate, a page for each way of doing so. There is no code in here.

// Of two definitions of a link the first counts: a page here, a file where the Markdown is read as
// one. Without them, failing tests are named by file and line.

#[cfg_attr(not(doctest), doc = include_str!("links.txt"))]
#[doc = include_str!("axum.md")]
pub mod axum {}

#[cfg_attr(not(doctest), doc = include_str!("links.txt"))]
#[doc = include_str!("hyper.md")]
pub mod hyper {}

#[cfg_attr(not(doctest), doc = include_str!("links.txt"))]
#[doc = include_str!("gateway.md")]
pub mod gateway {}

#[cfg_attr(not(doctest), doc = include_str!("links.txt"))]
#[doc = include_str!("stores.md")]
pub mod stores {}

#[cfg_attr(not(doctest), doc = include_str!("links.txt"))]
#[doc = include_str!("profiles.md")]
pub mod profiles {}

#[cfg_attr(not(doctest), doc = include_str!("links.txt"))]
#[doc = include_str!("limits.md")]
pub mod limits {}
