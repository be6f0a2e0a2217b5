//! A model file or directory of this machine, copied in: the folder never points outside itself.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use inferno_engine::store;

use super::staged::{CHUNK_BYTES, StagedFolder};
use super::{Progress, PullError, Staged, StagedFile};

/// Copies `from` to `partial`: a file, or what a model directory consists of.
pub(super) fn copy(
    from: &Path,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<Staged, PullError> {
    progress.begin("copying", Some(store::bytes_of(from)?));
    if !store::is_folder(from) {
        return copy_file(from, StagedFile::create(partial)?, &mut |bytes| {
            progress.advance_to(bytes);
        });
    }
    let mut folder = StagedFolder::create(partial)?;
    for name in store::FOLDER_FILES {
        let (from, before) = (from.join(name), folder.bytes());
        if from.is_file() {
            let target = folder.file(name)?;
            let file = copy_file(&from, target, &mut |bytes| progress.advance_to(before + bytes))?;
            folder.add(name, &file);
        }
    }
    Ok(folder.finish())
}

fn copy_file(
    from: &Path,
    mut staged: StagedFile,
    progress: &mut dyn FnMut(u64),
) -> Result<Staged, PullError> {
    let mut source = File::open(from).map_err(PullError::at("read", from))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut buffer).map_err(PullError::at("read", from))? {
            0 => break,
            read => staged.write(&buffer[..read])?,
        }
        progress(staged.bytes());
    }
    staged.finish()
}
