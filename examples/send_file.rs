//! Sends files, or waits for files and takes them.
//! Run: `OFFHOOK_PASSWORD=… cargo run --example send_file -- me@example.org you@example.org photo.jpg` to send,
//! `… -- me@example.org into/` to receive what contacts offer into that directory.

#![allow(clippy::wildcard_enum_match_arm)]

use offhook::client::{Client, EndKind, ReceiveOptions, SendOptions, Transfer, TransferEvent};
use offhook::wire::jid::Jid;
use std::path::PathBuf;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (account, rest) = arguments.split_first().ok_or("usage: send_file ACCOUNT (ADDRESS FILE… | DIRECTORY)")?;
    let password = std::env::var("OFFHOOK_PASSWORD")?;
    let mut client = Client::builder().account(Jid::new(account)?).password(password).build().await?;
    let transfer = match rest {
        [directory] => {
            let incoming = client.incoming_files().await.ok_or("signed out")?;
            println!("{} offers {:?}", incoming.from, incoming.files);
            // Nothing is written before this, and the other side has learned no address.
            incoming.accept(ReceiveOptions { further: true, ..ReceiveOptions::new(directory) }).await?
        }
        [to, files @ ..] if !files.is_empty() => {
            let files = files.iter().map(PathBuf::from).collect();
            client.send(Jid::new(to)?, files, SendOptions::default()).await?
        }
        _ => return Err("nothing to send".into()),
    };
    let complete = follow(transfer).await;
    client.close().await;
    if complete { Ok(()) } else { Err("the transfer is not complete; the same again goes on with it".into()) }
}

async fn follow(mut transfer: Transfer) -> bool {
    while let Some(event) = transfer.next_event().await {
        match event {
            TransferEvent::Progress(p) => {
                println!("{}: {} of {:?} bytes, {:.0} bytes/s", transfer.name(p.file), p.bytes, p.total, p.rate);
            }
            TransferEvent::Done(done) => println!("{}: {} bytes, verified: {}", done.name, done.bytes, done.verified),
            TransferEvent::Ended(ended) => return ended.kind == EndKind::Completed,
            other => println!("{other:?}"),
        }
    }
    false
}
