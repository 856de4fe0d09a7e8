//! What is said through a tunnel, whichever way it was opened.

use meshwright_testbed::{Step, WorldError, apps::pattern};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::app::{App, EARLY, ECHO, GREETING, LATE};

/// More than any window between here and the app.
pub(crate) const MANY: u64 = 3 << 20;

/// Says something, twice, and hears it, on a tunnel that stays open.
pub(crate) async fn exchange<S>(stream: &mut S, first: bool) -> Result<(), WorldError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if first {
        stream.write_all(&[ECHO]).await.step("choose echo")?;
    }
    for message in [b"first message", b"other message"] {
        stream.write_all(message).await.step("speak")?;
        stream.flush().await.step("flush")?;
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).await.step("hear")?;
        assert_eq!(&answer, message, "bytes arrive in order and unchanged");
    }
    Ok(())
}

/// The client finishes first; all that the app says afterwards arrives.
pub(crate) async fn finish_first<S>(mut stream: S, app: &mut App) -> Result<(), WorldError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&many(LATE)?).await.step("speak")?;
    stream.shutdown().await.step("finish")?;
    assert_eq!(
        app.ended().await?,
        MANY,
        "the app sees the end, after every byte"
    );
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .step("hear an answer after finishing")?;
    let answer = pattern::read(answer.as_slice()).step("check the answer")?;
    assert_eq!(answer, MANY, "the whole answer arrives");
    Ok(())
}

/// The app finishes first; all that the client says afterwards arrives.
pub(crate) async fn finish_last<S>(mut stream: S, app: &mut App) -> Result<(), WorldError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    hear_finish(&mut stream).await?;
    let rest = many(EARLY)?;
    let rest = rest.get(1..).unwrap_or_default();
    stream
        .write_all(rest)
        .await
        .step("speak to an app that finished")?;
    stream.shutdown().await.step("finish")?;
    assert_eq!(app.ended().await?, MANY, "the app hears every byte");
    Ok(())
}

/// The app finishes first, and that is heard, after every byte of it.
pub(crate) async fn hear_finish<S>(stream: &mut S) -> Result<(), WorldError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&[EARLY]).await.step("choose")?;
    stream.flush().await.step("flush")?;
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .await
        .step("hear the app finish")?;
    assert_eq!(said, GREETING);
    Ok(())
}

fn many(choice: u8) -> Result<Vec<u8>, WorldError> {
    let mut bytes = vec![choice];
    pattern::write(&mut bytes, MANY).step("make the pattern")?;
    Ok(bytes)
}
