//! One computation for everybody in a process, and what becomes of one that does not end well.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use larder::{Backend, Class, ErrorKind};
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::support::{assert_refused, number_from_environment, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_callers_for_one_cold_key_compute_once() {
    for backend in [Backend::Sqlite, Backend::Memory, Backend::Off] {
        let folder = tempfile::tempdir().unwrap();
        let larder = open(folder.path(), |own| own.backend = backend).await;
        let runs = Arc::new(AtomicU64::new(0));
        // The one that computes does not end before all of them have asked.
        let (asked, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
        let callers = (0..1_000).map(|_| {
            let (cache, runs, asked, gate) = (larder.embed_cache(), runs.clone(), asked.clone(), gate.clone());
            tokio::spawn(async move {
                if asked.fetch_add(1, Ordering::SeqCst) == 999 {
                    gate.add_permits(1_000);
                }
                let computed = cache.get_or_compute(MODEL, "cold", || async {
                    runs.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(vector(5))
                });
                computed.await.unwrap().as_slice().to_vec()
            })
        });
        for caller in within(join_all(callers)).await {
            assert_eq!(caller.unwrap(), vector(5));
        }
        let statistics = larder.embed_cache().statistics().await.unwrap();
        if backend == Backend::Off {
            // Who comes after it has ended computes again.
            assert!(runs.load(Ordering::SeqCst) <= 1_000 - statistics.shared, "{statistics:?}");
        } else {
            assert_eq!((runs.load(Ordering::SeqCst), statistics.computed), (1, 1), "{backend:?}");
            assert_eq!(statistics.hits() + statistics.shared, 999, "{statistics:?}");
        }
        larder.close().await;
    }
}

#[tokio::test]
async fn only_misses_are_computed_each_once_and_answers_keep_their_order() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    for number in (0..100).step_by(3) {
        put(&cache, number).await;
    }
    let inputs: Vec<String> = (0..100).chain(0..100).rev().map(input).collect();
    let batches = std::sync::Mutex::new(Vec::new());
    let embed = |missing: Vec<&String>| {
        batches.lock().unwrap().push(missing.len());
        let numbers: Vec<u64> = missing.iter().map(|text| text.split(' ').nth(1).unwrap().parse().unwrap()).collect();
        async move { Ok::<_, Infallible>(numbers.into_iter().map(vector).collect()) }
    };
    let vectors = cache.get_or_compute_many(MODEL, &inputs, embed).await.unwrap();
    for (text, found) in inputs.iter().zip(&vectors) {
        let number = text.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(found.as_slice(), vector(number), "{text}");
    }
    assert_eq!(*batches.lock().unwrap(), [66], "in the caller's one batch");
    assert!(
        cache
            .get_or_compute_many(MODEL, Vec::<&str>::new(), |_| async { Err("nothing to do") })
            .await
            .unwrap()
            .is_empty()
    );
    larder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_batches_compute_each_key_once_and_never_wait_for_each_other_in_a_circle() {
    let larder = Larder::temporary().await.unwrap();
    let runs: Arc<Vec<AtomicU64>> = Arc::new((0..400).map(|_| AtomicU64::new(0)).collect());
    let callers = (0..40_u64).map(|caller| {
        let (cache, runs) = (larder.embed_cache(), runs.clone());
        tokio::spawn(async move {
            // Each in another order, half of all keys.
            let mut numbers: Vec<u64> = (0..200).map(|at| (at * 7 + caller * 13) % 400).collect();
            if caller % 2 == 1 {
                numbers.reverse();
            }
            let inputs: Vec<String> = numbers.iter().map(|number| input(*number)).collect();
            let embed = |missing: Vec<&String>| {
                let missing: Vec<u64> =
                    missing.iter().map(|text| text.split(' ').nth(1).unwrap().parse().unwrap()).collect();
                let runs = &runs;
                async move {
                    tokio::task::yield_now().await;
                    for number in &missing {
                        runs[usize::try_from(*number).unwrap()].fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<_, Infallible>(missing.into_iter().map(vector).collect())
                }
            };
            let vectors = cache.get_or_compute_many(MODEL, &inputs, embed).await.unwrap();
            for (number, found) in numbers.iter().zip(vectors) {
                assert_eq!(found.as_slice(), vector(*number));
            }
        })
    });
    for caller in within(join_all(callers)).await {
        caller.unwrap();
    }
    assert!(runs.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{runs:?}");
    larder.close().await;
}

/// A caller whose computation has begun and waits to be told how to end, and one that waits for its result.
async fn leader_and_waiter<T: Send + 'static>(
    larder: &Larder,
    end: impl Future<Output = Result<Vec<f32>, String>> + Send + 'static,
    then: impl FnOnce(larder::Result<larder::Vector>) -> T + Send + 'static,
) -> (tokio::task::JoinHandle<T>, tokio::task::JoinHandle<larder::Result<larder::Vector>>) {
    let (began, has_begun) = oneshot::channel();
    let cache = larder.embed_cache();
    let leader = tokio::spawn(async move {
        let computed = cache.get_or_compute(MODEL, "x", || async {
            began.send(()).unwrap();
            end.await
        });
        then(computed.await)
    });
    has_begun.await.unwrap();
    let cache = larder.embed_cache();
    let waiter =
        tokio::spawn(async move { cache.get_or_compute(MODEL, "x", || async { Ok::<_, String>(vector(2)) }).await });
    // It waits by now: the current-thread runtime has run it as far as it comes.
    tokio::task::yield_now().await;
    (leader, waiter)
}

#[tokio::test]
async fn computation_that_fails_caches_nothing_and_lets_the_next_waiter_try() {
    let larder = Larder::temporary().await.unwrap();
    let (fail, failing) = oneshot::channel::<()>();
    let end = async move {
        failing.await.unwrap();
        Err("the model is gone".to_owned())
    };
    let (leader, waiter) = leader_and_waiter(&larder, end, |answer| answer.unwrap_err()).await;
    fail.send(()).unwrap();
    let error = within(leader).await.unwrap();
    assert_eq!(error.class(), Class::Computation);
    assert!(matches!(error.kind(), ErrorKind::Computation { producer, .. } if producer.contains(MODEL)), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("the model is gone"));
    assert_eq!(within(waiter).await.unwrap().unwrap().as_slice(), vector(2));
    let statistics = larder.embed_cache().statistics().await.unwrap();
    assert_eq!((statistics.computed, statistics.misses), (1, 2));
    larder.close().await;
}

#[tokio::test]
async fn computation_that_panics_caches_nothing_and_lets_the_next_waiter_try() {
    let larder = Larder::temporary().await.unwrap();
    let (fail, failing) = oneshot::channel::<()>();
    let end = async move {
        failing.await.unwrap();
        panic!("on purpose")
    };
    let (leader, waiter) = leader_and_waiter(&larder, end, |_| ()).await;
    fail.send(()).unwrap();
    assert!(within(leader).await.unwrap_err().is_panic());
    assert_eq!(within(waiter).await.unwrap().unwrap().as_slice(), vector(2));
    // A panic of the function itself, before there is a future.
    let cache = larder.embed_cache();
    let early = cache.get_or_compute(MODEL, "y", || -> std::future::Ready<Result<Vec<f32>, String>> { panic!("too") });
    assert!(AssertUnwindSafe(early).catch_unwind().await.is_err());
    assert_eq!(cache.get(MODEL, "y").await.unwrap(), None);
    let next = within(cache.get_or_compute(MODEL, "y", || async { Ok::<_, String>(vector(3)) })).await;
    assert_eq!(next.unwrap().as_slice(), vector(3));
    larder.close().await;
}

#[tokio::test]
async fn computation_that_is_cancelled_caches_nothing_and_lets_the_next_waiter_try() {
    let larder = Larder::temporary().await.unwrap();
    let (leader, waiter) = leader_and_waiter(&larder, std::future::pending(), |_| ()).await;
    leader.abort();
    assert!(within(leader).await.unwrap_err().is_cancelled());
    assert_eq!(within(waiter).await.unwrap().unwrap().as_slice(), vector(2));
    larder.close().await;
}

/// Callers that go away at any point, again and again: nobody else is stuck, and nothing is held for ever.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_anywhere_leave_nothing_behind() {
    let larder = Larder::temporary().await.unwrap();
    for round in 0..number_from_environment("LARDER_CANCELS", 300) {
        let cache = larder.embed_cache();
        let text = input(round);
        let mut computed = Box::pin(cache.get_or_compute(MODEL, &text, || async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(vector(round))
        }));
        for _ in 0..round % 30 {
            if futures::poll!(&mut computed).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(computed);
        let again = within(cache.get_or_compute(MODEL, &text, || async { Ok::<_, Infallible>(vector(round)) })).await;
        assert_eq!(again.unwrap().as_slice(), vector(round));
    }
    larder.close().await;
}

#[tokio::test]
async fn computation_that_hangs_is_overtaken_and_waits_end_at_their_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let larder = open(folder.path(), |own| own.compute_time_max = Duration::from_millis(200)).await;
    let (release, hanging) = oneshot::channel::<()>();
    let end = async move {
        hanging.await.unwrap();
        Ok(vector(1))
    };
    let (leader, waiter) = leader_and_waiter(&larder, end, |answer| answer.unwrap().as_slice().to_vec()).await;
    let impatient = larder.embed_cache().deadline(Duration::from_millis(5));
    let refused = impatient.get_or_compute(MODEL, "x", || async { Ok::<_, String>(vector(9)) }).await;
    assert_refused(refused, Class::Deadline, &["another caller's computation"]);
    // The waiter waits as long as the computation may take, and then either does it itself or is told.
    match within(waiter).await.unwrap() {
        Ok(found) => assert_eq!(found.as_slice(), vector(2)),
        Err(error) => assert_eq!(error.class(), Class::Deadline, "{error}"),
    }
    let next =
        within(larder.embed_cache().deadline(HOUR).get_or_compute(MODEL, "x", || async { Ok::<_, String>(vector(2)) }))
            .await;
    assert_eq!(next.unwrap().as_slice(), vector(2));
    // The late result is its caller's, and does not count.
    release.send(()).unwrap();
    assert_eq!(within(leader).await.unwrap(), vector(1));
    assert_eq!(larder.embed_cache().get(MODEL, "x").await.unwrap().unwrap().as_slice(), vector(2));
    larder.close().await;
}

#[tokio::test]
async fn computation_that_asks_for_its_own_value_is_refused_and_for_others_is_not() {
    let larder = Larder::temporary().await.unwrap();
    let cache = larder.embed_cache();
    let inner = cache.clone();
    let itself = cache.get_or_compute(MODEL, "x", || async move {
        tokio::task::yield_now().await;
        inner
            .get_or_compute(MODEL, "x", || async { Ok::<_, String>(vector(1)) })
            .await
            .map(|found| found.as_slice().to_vec())
    });
    let error = within(itself).await.unwrap_err();
    assert_eq!(error.class(), Class::Computation);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("asks the cache for what it computes"), "{cause}");
    // Nor by a batch of which it is part.
    let inner = cache.clone();
    let batch = cache.get_or_compute_many(MODEL, ["a", "b"], |_| {
        let inner = inner.clone();
        async move {
            let found = inner.get_or_compute(MODEL, "b", || async { Ok::<_, String>(vector(1)) }).await?;
            Ok::<_, larder::Error>(vec![found.as_slice().to_vec(); 2])
        }
    });
    assert_eq!(within(batch).await.unwrap_err().class(), Class::Computation);
    // Another value is no circle.
    let inner = cache.clone();
    let other = cache.get_or_compute(MODEL, "x", || async move {
        inner
            .get_or_compute(MODEL, "y", || async { Ok::<_, String>(vector(1)) })
            .await
            .map(|found| found.as_slice().to_vec())
    });
    assert_eq!(within(other).await.unwrap().as_slice(), vector(1));
    larder.close().await;
}
