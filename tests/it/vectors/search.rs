use larder::protocol::vectors::{FilterPlan, ScanPlan};
use larder::{Larder, Metric, PointFields, field};

use super::oracle::Random;
use super::{collection, ids, json, point};

#[tokio::test]
async fn ties_go_by_id_and_pages_follow_on() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 2, Metric::Cosine).await;
    let points = (0..40).rev().map(|n| point(&format!("{n:02}"), &[1.0, 1.0]));
    notes.upsert(points).await.unwrap();
    let expected: Vec<_> = (0..40).map(|n| format!("{n:02}")).collect();
    for (offset, k) in [(0, 5), (5, 5), (38, 10), (0, 40)] {
        let hits = notes.search([1.0, 1.0]).offset(offset).k(k).await.unwrap();
        assert_eq!(ids(&hits), expected[offset..(offset + k).min(40)]);
    }
}

#[tokio::test]
async fn included_excluded_and_threshold_narrow_a_search() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    notes.upsert((1..=9_u8).map(|n| point(&n.to_string(), &[f32::from(n)]))).await.unwrap();
    let search = || notes.search([1.0]);
    assert_eq!(ids(&search().include(["3", "5", "none"]).await.unwrap()), ["5", "3"]);
    assert_eq!(ids(&search().include(["3", "5"]).include(["7"]).exclude(["5"]).await.unwrap()), ["7", "3"]);
    assert_eq!(ids(&search().exclude(["9", "7"]).k(2).await.unwrap()), ["8", "6"]);
    assert_eq!(ids(&search().threshold(7.0).await.unwrap()), ["9", "8", "7"]);
    let many = notes.search_many([[1.0], [-1.0]]).k(2).await.unwrap();
    assert_eq!([ids(&many[0]), ids(&many[1])], [["9", "8"], ["1", "2"]]);
}

#[tokio::test]
async fn only_what_is_asked_for_is_returned() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    let whole = point("a", &[2.0]).with_metadata(json("{}")).with_text("t").with_document("d").unwrap();
    notes.upsert([whole.clone()]).await.unwrap();
    let hit = &notes.search([1.0]).fields(PointFields::NONE).await.unwrap()[0];
    assert_eq!((&hit.document, &hit.metadata, &hit.text, &hit.vector), (&None, &None, &None, &None));
    let hit = &notes.search([1.0]).fields(PointFields::ALL).await.unwrap()[0];
    assert_eq!((&hit.document, &hit.metadata, &hit.text), (&whole.document, &whole.metadata, &whole.text));
    assert_eq!(hit.vector.as_ref(), Some(&whole.vector));
    assert!(notes.search([1.0]).await.unwrap()[0].vector.is_none());
}

#[tokio::test]
async fn hybrid_searches_fuse_both_ranks() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 2, Metric::Cosine).await;
    notes
        .upsert([
            point("near", &[1.0, 0.0]).with_text("nothing of it"),
            point("both", &[0.9, 0.1]).with_text("the sales report"),
            point("word", &[-1.0, 0.0]).with_text("sales"),
        ])
        .await
        .unwrap();
    let hits = notes.search([1.0, 0.0]).text("sales").await.unwrap();
    // Ranks 2 and 2, 3 and 1, 1 and none.
    assert_eq!(ids(&hits), ["word", "both", "near"]);
    assert!((hits[1].score - 2.0 / 62.0).abs() < 1e-7, "{}", hits[1].score);
    assert_eq!(ids(&notes.search_text("sales").await.unwrap()), ["word", "both"]);
    let hits = notes.search([1.0, 0.0]).text("sales").exclude(["both"]).await.unwrap();
    assert_eq!(ids(&hits), ["word", "near"]);
    notes.upsert([point("word", &[-1.0, 0.0]).with_text("costs")]).await.unwrap();
    assert_eq!(ids(&notes.search_text("sales").await.unwrap()), ["both"]);
    notes.delete(["both"]).await.unwrap();
    assert_eq!(ids(&notes.search_text("sales").await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn diverse_answers_skip_what_says_the_same() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 2, Metric::Cosine).await;
    notes
        .upsert([
            point("a", &[1.0, 0.05]),
            point("a again", &[1.0, 0.06]),
            point("b", &[0.7, -0.7]),
            point("far", &[-1.0, 0.0]),
        ])
        .await
        .unwrap();
    let search = |relevance: f32| notes.search([1.0, 0.0]).k(2).diverse(relevance, 4);
    assert_eq!(ids(&search(1.0).await.unwrap()), ["a", "a again"]);
    assert_eq!(ids(&search(0.5).await.unwrap()), ["a", "b"]);
    assert_eq!(ids(&search(0.0).await.unwrap()), ["a", "far"]);
}

#[tokio::test]
async fn an_explanation_tells_which_way_was_taken() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 64, Metric::Cosine).await;
    let mut random = Random::new(1);
    let points: Vec<_> = (0..3_000)
        .map(|n| point(&n.to_string(), &random.vector(64)).with_metadata(json(&format!(r#"{{"n": {n}}}"#))))
        .collect();
    notes.upsert(points).await.unwrap();
    let query = random.vector(64);
    let search = || notes.search(&query);
    for (request, plan, wanted) in [
        (search(), ScanPlan::Codes, None),
        (search().exact(), ScanPlan::Rows, None),
        (search().filter(field("n").lt(1_500)), ScanPlan::MaskedCodes, Some(1_500)),
        (search().filter(field("n").lt(30)), ScanPlan::MaskedRows, Some(30)),
        (search().filter(field("n").lt(0)), ScanPlan::Nothing, Some(0)),
        (search().k(0), ScanPlan::Nothing, None),
    ] {
        let hits = request.clone().await.unwrap();
        let explained = request.explain().await.unwrap();
        assert_eq!((explained.plan, explained.wanted_count), (plan, wanted), "{explained:?}");
        assert_eq!(explained.hits, hits);
        assert_eq!(explained.point_count, 3_000);
        assert!(!explained.reason.is_empty());
    }
}

#[tokio::test]
async fn an_explanation_tells_how_the_filter_was_answered() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 2, Metric::L2).await;
    let metadata = |n: u16| json(&format!(r#"{{"n": {n}, "long": "{}{n}"}}"#, "x".repeat(200)));
    let points = (0..3_000_u16).map(|n| point(&n.to_string(), &[f32::from(n), 0.0]).with_metadata(metadata(n)));
    notes.upsert(points).await.unwrap();
    let (few, long) = (field("n").lt(10), field("long").text_match("x7"));
    let search = |filter| notes.search([0.0, 0.0]).filter(filter).explain();
    for (filter, plan, wanted) in [
        (few.clone(), FilterPlan::Columns, 10),
        (few.clone().and(field("none").is_empty()), FilterPlan::Columns, 10),
        (few.clone().and(long.clone()), FilterPlan::ColumnsAndRows, 1),
        (long.clone(), FilterPlan::Sql, 111),
    ] {
        let explained = search(filter).await.unwrap();
        assert_eq!((explained.filter_plan, explained.wanted_count), (Some(plan), Some(wanted)));
    }
    // A declared field has its column, however large.
    larder.vectors().declare_field(field("long")).await.unwrap();
    let explained = search(few.or(long)).await.unwrap();
    assert_eq!((explained.filter_plan, explained.wanted_count), (Some(FilterPlan::Columns), Some(120)));
}

#[tokio::test]
async fn without_memory_for_columns_filters_are_answered_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Larder::builder(folder.path()).vectors(|vectors| {
        vectors.own.index_bytes_max = 1 << 20;
        vectors.own.vector_bytes_max = 0;
    });
    let larder = builder.open().await.unwrap();
    let notes = collection(&larder, 300, Metric::L2).await;
    let mut random = Random::new(2);
    let points: Vec<_> = (0..2_700)
        .map(|n| point(&n.to_string(), &random.vector(300)).with_metadata(json(&format!(r#"{{"n": {n}}}"#))))
        .collect();
    notes.upsert(points).await.unwrap();
    let explained = notes.search(random.vector(300)).filter(field("n").lt(5)).explain().await.unwrap();
    assert_eq!((explained.filter_plan, explained.wanted_count), (Some(FilterPlan::Sql), Some(5)));
}

#[tokio::test]
async fn a_declared_field_changes_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let notes = collection(&larder, 2, Metric::L2).await;
    let points = (0..500_u16).map(|n| {
        point(&n.to_string(), &[f32::from(n), 0.0]).with_metadata(json(&format!(r#"{{"n": {}, "t": "x{n}"}}"#, n % 50)))
    });
    notes.upsert(points).await.unwrap();
    let filters = [
        field("n").eq(7),
        field("n").lt(3),
        field("n").ne(7),
        field("t").eq("x11"),
        field("n").eq(7).or(field("t").eq("x8")),
    ];
    let answers = async |larder: &Larder| {
        let notes = larder.vectors().collection("notes").open().await.unwrap();
        let mut answers = Vec::new();
        for filter in &filters {
            answers.push(notes.search([100.0, 0.0]).filter(filter.clone()).await.unwrap());
        }
        answers
    };
    let before = answers(&larder).await;
    assert_eq!(ids(&before[0])[..2], ["107", "57"]);
    assert!(larder.vectors().declare_field(field("n")).await.unwrap());
    assert!(larder.vectors().declare_field(field("t")).await.unwrap());
    assert!(!larder.vectors().declare_field(field("n")).await.unwrap());
    assert_eq!(answers(&larder).await, before);
    larder.close().await;
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(answers(&larder).await, before);
    super::assert_sound(&larder).await;
}
