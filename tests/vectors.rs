//! The vectors: 80 numbered facts about which requests pass, what becomes of them on their way, and
//! by which door the others leave. Most are rows of tables, some appear in several; a failure names
//! the number.

mod support;

/// Requests that pass: keys in each place, what is left of them, what is answered (1-17, 21-22,
/// 24-27, 31-32, 41, 54-57, 59, 61-62, 65-66, 68, 70-72, 74-75).
#[path = "vectors/accepted.rs"]
mod accepted;
/// What all vectors share.
#[path = "vectors/case.rs"]
mod case;
/// How a refused handshake ends (35, 43-51, 53, 80).
#[path = "vectors/closed.rs"]
mod closed;
/// What axum sees (67, 79).
#[path = "vectors/inside.rs"]
mod inside;
/// Requests that do not pass: why not, and by which door they leave (18-20, 23, 28-30, 33-34, 36-40,
/// 42, 52, 58, 60, 63-64, 69, 73-78).
#[path = "vectors/refused.rs"]
mod refused;
