//! larder's vectors store through its public handle, for `vectors.py`: `build` or `query`, one JSON answer.
//!
//! Every setting is at its default but durability: relaxed, as the peers without a log have at best.

use std::path::Path;
use std::time::{Duration, Instant};

use larder::{Durability, JsonText, Larder, Point, PointFields, field};
use peer_harness::Result;
use peer_harness::vectors::{self, CALLERS, Job, Load, Run, Stage};

const BATCH: usize = 1_000;

async fn open(folder: &Path) -> Result<Larder> {
    Ok(Larder::builder(folder).vectors(|vectors| vectors.common.durability = Durability::Relaxed).open().await?)
}

pub(crate) async fn serve(job: &Job) -> Result<Run> {
    match job.stage {
        Stage::Build => build(job).await,
        Stage::Durable => durable(job).await,
        Stage::Query => query(job).await,
    }
}

async fn build(job: &Job) -> Result<Run> {
    let larder = open(&job.folder).await?;
    let notes = larder.vectors().collection("notes").dimensions(job.dimensions).open().await?;
    let mut run = Run::default();
    for first in (0..job.count()).step_by(BATCH) {
        let points =
            (first..job.count().min(first + BATCH)).map(|number| point(job, number)).collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        notes.upsert(points).await?;
        run.insert_seconds += began.elapsed().as_secs_f64();
    }
    // Until what was inserted last is found.
    let began = Instant::now();
    notes.search(job.query(0)).await?;
    run.build_seconds = run.insert_seconds + began.elapsed().as_secs_f64();
    run.upkeep_seconds = upkeep(&larder).await?;
    larder.close().await;
    Ok(run)
}

/// Waits until maintenance commits nothing more: from then on the collection opens quickly.
async fn upkeep(larder: &Larder) -> Result<f64> {
    let (began, mut ended, mut last) = (Instant::now(), Instant::now(), larder.vectors().sequence().await?);
    // Maintenance comes round every second.
    while ended.elapsed() < Duration::from_millis(2_500) {
        std::thread::sleep(Duration::from_millis(50));
        let sequence = larder.vectors().sequence().await?;
        if sequence != last {
            (ended, last) = (Instant::now(), sequence);
        }
    }
    Ok((ended - began).as_secs_f64())
}

fn point(job: &Job, number: usize) -> Result<Point> {
    let point = Point::new(number.to_string(), job.base(number))?;
    Ok(point.with_metadata(JsonText::new(Job::metadata(number))?))
}

/// With the default settings: durable.
async fn durable(job: &Job) -> Result<Run> {
    let larder = Larder::open(&job.folder).await?;
    let notes = larder.vectors().collection("notes").dimensions(job.dimensions).open().await?;
    let own = |caller| (caller..job.durable_count()).step_by(CALLERS).map(|number| point(job, number));
    let callers = (0..CALLERS).map(|caller| own(caller).collect()).collect::<Result<Vec<Vec<_>>>>()?;
    let began = Instant::now();
    let notes = &notes;
    let put = async |own: Vec<Point>| -> Result<()> {
        for point in own {
            notes.upsert([point]).await?;
        }
        Ok(())
    };
    futures::future::try_join_all(callers.into_iter().map(put)).await?;
    let insert_seconds = began.elapsed().as_secs_f64();
    larder.close().await;
    Ok(Run::inserted(insert_seconds))
}

async fn query(job: &Job) -> Result<Run> {
    let before = vectors::memory();
    let began = Instant::now();
    let larder = open(&job.folder).await?;
    let notes = larder.vectors().collection("notes").open().await?;
    notes.search(job.query(0)).await?;
    let mut run = Run::opened(began.elapsed().as_secs_f64());
    for load in &job.loads {
        let search = |query: usize| {
            let search = notes.search(job.query(query)).k(10).fields(PointFields::NONE);
            let search = if job.setting.exact { search.exact() } else { search };
            match Load::field(load) {
                Some((name, count)) => search.filter(field(name).eq(job.value(query, count))),
                None => search,
            }
        };
        for query in 0..job.warm_up_count() {
            search(query).await?;
        }
        for query in 0..job.query_count() {
            let request = search(query);
            let began = Instant::now();
            let hits = request.await?;
            let time = began.elapsed();
            let ids = hits.iter().map(|hit| hit.id.as_str().parse()).collect::<Result<_, _>>()?;
            run.add(load, time, ids);
        }
    }
    run.note_memory(before);
    larder.close().await;
    Ok(run)
}
