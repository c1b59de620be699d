//! Removes what a rig made once the rig is gone; see `tests::janitor`.
#![forbid(unsafe_code)]

use std::io::BufRead;

fn main() {
    let lines: Vec<String> = std::io::stdin().lock().lines().map_while(Result::ok).collect();
    tests::janitor::clean(&lines);
}
