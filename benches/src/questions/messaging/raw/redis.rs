//! redis-rs: one multiplexed connection to publish, another to read and acknowledge many at once. What is done is removed,
//! as from a queue of ours.

use anyhow::{Context as _, Result, ensure};
use futures_util::{TryStreamExt as _, stream};
use redis::aio::MultiplexedConnection;
use redis::{Client, Value, cmd};

use super::super::{Job, Order, PAUSE, Sample, median, ours};
use crate::stopwatch::Stopwatch;

const GROUP: &str = "bare";

pub(in super::super) fn measure(job: &Job) -> Result<Sample> {
    ours::runtime()?.block_on(async {
        let client = Client::open(job.url.as_str())?;
        let publisher = client.get_multiplexed_async_connection().await?;
        // Reads wait longer than an answer may take.
        let settings = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let mut reader = client
            .get_multiplexed_async_connection_with_config(&settings)
            .await?;
        for stream in [&job.address, &job.single_address] {
            let mut create = cmd("XGROUP");
            create
                .arg("CREATE")
                .arg(stream)
                .arg(GROUP)
                .arg("0")
                .arg("MKSTREAM");
            create.query_async::<()>(&mut reader).await?;
        }
        Ok(Sample {
            publish: publish(&publisher, job).await?,
            consume: consume(&mut reader, job).await?,
            round_trip: round_trip(&publisher, &mut reader, job).await?,
        })
    })
}

async fn send(connection: &MultiplexedConnection, stream: &str, id: u32) -> Result<()> {
    let mut add = cmd("XADD");
    add.arg(stream)
        .arg("*")
        .arg("id")
        .arg(format!("{stream}.{id}"))
        .arg("payload")
        .arg(Order::bytes(id)?);
    Ok(add.query_async::<()>(&mut connection.clone()).await?)
}

async fn publish(connection: &MultiplexedConnection, job: &Job) -> Result<f64> {
    let watch = Stopwatch::start();
    stream::iter((0..job.messages).map(Ok))
        .try_for_each_concurrent(job.under_way, |id| send(connection, &job.address, id))
        .await?;
    Ok(watch.per_second(u64::from(job.messages)))
}

/// Ids of the next entries.
async fn read(
    connection: &mut MultiplexedConnection,
    stream: &str,
    count: usize,
) -> Result<Vec<Value>> {
    let mut read = cmd("XREADGROUP");
    read.arg("GROUP")
        .arg(GROUP)
        .arg("one")
        .arg("COUNT")
        .arg(count);
    read.arg("BLOCK")
        .arg(10_000)
        .arg("STREAMS")
        .arg(stream)
        .arg(">");
    let answer: Vec<(String, Vec<(Value, Value)>)> = read.query_async(connection).await?;
    let (_, entries) = answer.into_iter().next().context("nothing came")?;
    Ok(entries.into_iter().map(|(id, _)| id).collect())
}

async fn acknowledge(
    connection: &mut MultiplexedConnection,
    stream: &str,
    ids: Vec<Value>,
) -> Result<()> {
    let count = ids.len();
    let (mut done, mut remove) = (cmd("XACK"), cmd("XDEL"));
    done.arg(stream).arg(GROUP);
    remove.arg(stream);
    for id in ids {
        let id = redis::from_redis_value::<Vec<u8>>(id)?;
        done.arg(&id);
        remove.arg(&id);
    }
    let mut both = redis::pipe();
    both.add_command(done).add_command(remove);
    let (acknowledged, removed): (usize, usize) = both.query_async(connection).await?;
    ensure!(
        acknowledged == count && removed == count,
        "{acknowledged} of {count} acknowledged, {removed} removed"
    );
    Ok(())
}

async fn consume(connection: &mut MultiplexedConnection, job: &Job) -> Result<f64> {
    let watch = Stopwatch::start();
    let mut taken = 0;
    while taken < job.messages as usize {
        let ids = read(connection, &job.address, job.under_way).await?;
        taken += ids.len();
        acknowledge(connection, &job.address, ids).await?;
    }
    Ok(watch.per_second(u64::from(job.messages)))
}

async fn round_trip(
    publisher: &MultiplexedConnection,
    reader: &mut MultiplexedConnection,
    job: &Job,
) -> Result<f64> {
    let stream = job.single_address.as_str();
    let mut spans = Vec::new();
    for id in 0..job.singles {
        tokio::time::sleep(PAUSE).await;
        let watch = Stopwatch::start();
        let (sent, ids) = tokio::join!(send(publisher, stream, id), read(reader, stream, 1));
        sent?;
        spans.push(watch.seconds() * 1e6);
        acknowledge(reader, stream, ids?).await?;
    }
    Ok(median(&mut spans))
}
