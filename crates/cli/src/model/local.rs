//! A model file of this machine, copied in: the folder never points outside itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::staged::CHUNK_BYTES;
use super::{Progress, PullError, Staged, StagedFile};

/// Copies `from` to `partial`.
pub(super) fn copy(
    from: &Path,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<Staged, PullError> {
    let mut source = File::open(from).map_err(PullError::at("read", from))?;
    let total_bytes = source.metadata().map_err(PullError::at("read", from))?.len();
    progress.begin("copying", Some(total_bytes));
    let mut staged = StagedFile::create(partial)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut buffer).map_err(PullError::at("read", from))? {
            0 => break,
            read => staged.write(&buffer[..read])?,
        }
        progress.advance_to(staged.bytes());
    }
    staged.finish()
}
