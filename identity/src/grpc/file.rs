use std::{io, path::Path};

use tokio::{fs::File, io::AsyncReadExt as _};
use zeroize::Zeroizing;

/// Reads a file of at most `limit` bytes. What is read is wiped when dropped.
pub(super) async fn read(path: &Path, limit: u32) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).await?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let read = file
        .take(u64::from(limit).saturating_add(1))
        .read_to_end(&mut bytes)
        .await?;
    if read > limit as usize {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is larger than anything legitimate",
        ));
    }
    Ok(bytes)
}
