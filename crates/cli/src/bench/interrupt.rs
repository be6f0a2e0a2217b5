//! Ctrl-C: the first ends the run, the second the program.

use tokio::runtime::Builder;
use tokio::signal::ctrl_c;
use tokio::sync::oneshot;

use crate::exit::INTERRUPTED;

/// Resolves at the first Ctrl-C. A thread of its own watches for the second, so that nothing, not even a
/// reader who does not take our report, keeps the program alive after it.
pub(super) fn first() -> std::io::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let watch = move || {
        runtime.block_on(async {
            if ctrl_c().await.is_ok() {
                sender.send(()).ok();
                ctrl_c().await.ok();
                std::process::exit(i32::from(INTERRUPTED));
            }
        });
    };
    std::thread::Builder::new().name("interrupts".into()).spawn(watch)?;
    Ok(receiver)
}
