//! How long a window of 8,192 tokens takes through the public API, at any length of the conversation, and an append; and how
//! long an append waits beside the largest writes there are.
//!
//! ```sh
//! cargo bench --bench chat              # up to 100,000 messages; about a minute
//! cargo bench --bench chat -- --quick   # up to 10,000
//! ```
//!
//! A table rather than criterion's statistics: what matters is the ratio between the lines.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]

use std::cell::Cell;
use std::time::{Duration, Instant};

use larder::{ChatMessage, Larder};

const WINDOWS: usize = 2_000;
const LIMIT: u64 = 8_192;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn message(n: usize) -> ChatMessage {
    // About 80 tokens, as a message of a chat has.
    let text =
        format!("Message {n}: {}", "what was said about the sales of the year before and who said it ".repeat(5));
    if n.is_multiple_of(2) { ChatMessage::user(text) } else { ChatMessage::assistant(text) }
}

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let at = (times.len() as f64 * share) as usize;
    times.get(at).copied().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let most = if std::env::args().any(|word| word == "--quick") { 10_000 } else { 100_000 };
    let larder = Larder::temporary().await?;
    println!("{:>24} {:>10} {:>10} {:>10}", "load", "p50 us", "p99 us", "messages");
    for count in [100, 1_000, 10_000, 100_000] {
        if count > most {
            break;
        }
        let chat = larder.chat().session(format!("window-{count}"));
        for batch in (0..count).step_by(1_000) {
            chat.append((batch..count.min(batch + 1_000)).map(message)).await?;
        }
        let mut times = Vec::with_capacity(WINDOWS);
        let mut held = 0;
        for _ in 0..WINDOWS {
            let began = Instant::now();
            held = chat.window(LIMIT).await?.messages.len();
            times.push(began.elapsed());
        }
        line(&format!("window-{count}"), &mut times, held);
    }
    many_sessions(&larder).await?;
    append(&larder).await?;
    beside(&larder, most).await?;
    larder.close().await;
    Ok(())
}

async fn many_sessions(larder: &Larder) -> Result<()> {
    for session in 0..1_000 {
        larder.chat().session(format!("s{session}")).append((0..100).map(message)).await?;
    }
    let (mut times, mut held) = (Vec::with_capacity(WINDOWS), 0);
    for round in 0..WINDOWS {
        let chat = larder.chat().session(format!("s{}", round * 7_919 % 1_000));
        let began = Instant::now();
        held = chat.window(LIMIT).await?.messages.len();
        times.push(began.elapsed());
    }
    line("window-1000-sessions", &mut times, held);
    Ok(())
}

async fn append(larder: &Larder) -> Result<()> {
    for callers in [1, 64] {
        let began = Instant::now();
        let tasks = (0..callers).map(|caller| {
            let chat = larder.chat().session(format!("append-{callers}-{caller}"));
            tokio::spawn(async move {
                let mut times = Vec::new();
                for n in 0..200 {
                    let began = Instant::now();
                    chat.append([message(n)]).await?;
                    times.push(began.elapsed());
                }
                Ok::<_, larder::Error>(times)
            })
        });
        let mut times = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            times.extend(task.await??);
        }
        let count = times.len();
        line(&format!("append-{callers}"), &mut times, 1);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let rate = count as f64 / began.elapsed().as_secs_f64();
        println!("{:>24} {rate:>10.0} messages/s, each acknowledged durable", "");
    }
    Ok(())
}

/// The longest that another caller's append waited while one write ran.
async fn beside(larder: &Larder, most: usize) -> Result<()> {
    println!("{:>24} {:>10} {:>10}", "beside", "took ms", "waited ms");
    let long = larder.chat().session(format!("window-{most}"));
    let (took, waited) = longest_wait(larder, async { long.fork("fork").await.map(|_| ()) }).await?;
    wait(&format!("fork-{most}"), took, waited);
    for count in [1_000, 10_000] {
        let chat = larder.chat().session(format!("batch-{count}"));
        let batch: Vec<ChatMessage> = (0..count).map(message).collect();
        let (took, waited) = longest_wait(larder, async { chat.append(batch).await.map(|_| ()) }).await?;
        wait(&format!("batch-{count}"), took, waited);
    }
    Ok(())
}

async fn longest_wait(
    larder: &Larder,
    write: impl Future<Output = larder::Result<()>>,
) -> Result<(Duration, Duration)> {
    let chat = larder.chat().session("beside");
    let is_done = Cell::new(false);
    let neighbour = async {
        let mut longest = Duration::ZERO;
        while !is_done.get() {
            let began = Instant::now();
            chat.append([message(1)]).await?;
            longest = longest.max(began.elapsed());
        }
        Ok::<_, larder::Error>(longest)
    };
    let timed = async {
        let began = Instant::now();
        let written = write.await;
        is_done.set(true);
        written.map(|()| began.elapsed())
    };
    let (took, longest) = tokio::join!(timed, neighbour);
    Ok((took?, longest?))
}

fn wait(name: &str, took: Duration, waited: Duration) {
    println!("{name:>24} {:>10.1} {:>10.1}", took.as_secs_f64() * 1e3, waited.as_secs_f64() * 1e3);
}

fn line(name: &str, times: &mut [Duration], held: usize) {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (p50, p99) = (percentile(times, 0.5), percentile(times, 0.99));
    println!("{name:>24} {:>10.1} {:>10.1} {held:>10}", micros(p50), micros(p99));
}
