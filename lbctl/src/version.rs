//! `--version`: this program's, and the daemon's when it answers within a second.

use std::time::Duration;

use control_api::method;
use control_api::views::Version;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Failure, Status};

const PATIENCE: Duration = Duration::from_secs(1);

/// Prints program, version, layout, DPDK. Never fails for want of a daemon.
///
/// # Errors
/// It cannot be written.
pub fn show(context: &mut Context) -> Result<Status, Failure> {
    context.set_patience(PATIENCE);
    let answer: Value = context.get(method::VERSION).unwrap_or_default();
    let daemon: Option<Version> = serde_json::from_value(answer.clone()).ok();
    let dpdk = answer["dpdk"].as_str().unwrap_or("unknown").to_owned();
    let layout = shm_layout::header::layout_text(shm_layout::header::layout_version());
    let own = env!("CARGO_PKG_VERSION");
    let view = json!({ "program": "lbctl", "version": own, "layout": layout, "dpdk": dpdk, "daemon": daemon });
    let text = |_: &Value| {
        let mut lines = vec![format!("lbctl {own}"), format!("layout {layout}"), format!("DPDK {dpdk}")];
        lines.extend(daemon.map(|d| {
            format!("daemon {}: lb-primary {}, layout {}, api {}", d.node, d.version, d.layout, d.api_version)
        }));
        lines
    };
    context.show(&view, text)?;
    Ok(Status::DONE)
}
