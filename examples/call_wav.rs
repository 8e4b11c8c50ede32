//! Calls somebody, plays a WAV file, records what is heard, hangs up at the file's end.
//! Run: `OFFHOOK_PASSWORD=… cargo run --example call_wav -- me@example.org you@example.org say.wav heard.wav`

use offhook::client::{CallEvent, Client, FRAME, Frame};
use offhook::io::audio::{AudioSink, AudioSource};
use offhook::io::wav::{WavRecorder, WavSource};
use offhook::wire::jid::Jid;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [account, to, play, record] = arguments.as_slice() else {
        return Err("usage: call_wav ACCOUNT ADDRESS PLAY.wav RECORD.wav, password in OFFHOOK_PASSWORD".into());
    };
    let mut speech = WavSource::open(Path::new(play), false)?;
    let mut recorder = WavRecorder::create(Path::new(record))?;
    let password = std::env::var("OFFHOOK_PASSWORD")?;
    let client = Client::builder().account(Jid::new(account)?).password(password).build().await?;
    let mut call = client.call(Jid::new(to)?).await?;
    let (speaker, mut heard) = call.audio().await;
    let mut clock = tokio::time::interval(FRAME);
    let mut connected = false;
    let ended = loop {
        tokio::select! {
            _ = clock.tick(), if connected => {
                let mut frame: Frame = [0; 960];
                if speech.read(&mut frame) {
                    speaker.send(&frame).await;
                } else {
                    call.hang_up().await;
                }
            }
            Some(frame) = heard.recv() => if connected {
                recorder.write(&frame)?;
            },
            event = call.next_event() => match event {
                Some(CallEvent::Connected(facts)) => {
                    println!("connected after {:?} with {}", facts.setup, facts.codec);
                    clock.reset();
                    connected = true;
                }
                Some(CallEvent::Ended(ended)) => break ended,
                Some(other) => println!("{other:?}"),
                None => return Err("the client has ended".into()),
            },
        }
    };
    recorder.finish()?;
    client.close().await;
    println!("{} after {:?}", ended.sentence(), ended.duration);
    if connected { Ok(()) } else { Err("it never became a call".into()) }
}
