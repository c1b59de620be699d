//! Makes the golden segments of this layout version: `cargo run -p shm-layout --example golden`.
//!
//! They stay in the repository for ever: every later build opens them, or refuses them as it should (`tests/golden`). A
//! version that has its files is not made again; whoever changed a row raises `LAYOUT_VERSION` first.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a tool of the tests")]
#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../tests/golden/packed.rs"]
mod packed;
#[path = "../tests/golden/sample.rs"]
mod sample;
#[path = "../tests/golden/visit.rs"]
mod visit;

use std::process::ExitCode;

use shm_layout::header::layout_text;
use shm_layout::limits::LAYOUT_VERSION;

fn main() -> ExitCode {
    let folder = packed::folder(&layout_text(LAYOUT_VERSION));
    std::fs::create_dir_all(&folder).unwrap();
    for (name, map) in sample::all() {
        let path = folder.join(name).with_extension("gz");
        if path.exists() {
            eprintln!("{} is there: a released layout does not change; hint: raise LAYOUT_VERSION", path.display());
            return ExitCode::FAILURE;
        }
        let bytes = packed::pack(&sample::words(&map));
        println!("{}: {} bytes of {}", path.display(), bytes.len(), map.bytes());
        std::fs::write(path, bytes).unwrap();
    }
    ExitCode::SUCCESS
}
