//! The example with one million sessions instead of ten; release builds run the ten in CI.

#[path = "../examples/session_table.rs"]
mod session_table;

#[test]
fn a_million_sessions_live_and_end() {
    session_table::run(session_table::ONE_MILLION, false);
}
