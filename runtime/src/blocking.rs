//! For callers without async: every request, and opening and closing, can be waited for on the current thread.
//!
//! ```
//! use larder::Larder;
//! use larder::blocking::wait;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let larder = wait(Larder::temporary())?;
//! let counters = larder.kv().collection::<i64>("counters");
//! wait(counters.put("visits", &1))?;
//! assert_eq!(wait(counters.get("visits"))?, Some(1));
//! wait(larder.close());
//! # Ok(())
//! # }
//! ```

/// Waits for a request or any other future of larder's, and returns its result.
///
/// It needs no runtime: larder has its own. Inside async code await instead; this would hold up the thread's other tasks.
pub fn wait<F: IntoFuture>(future: F) -> F::Output {
    futures::executor::block_on(future.into_future())
}
