use larder::protocol::vectors::{OpenCollection, SearchPoints};
use larder::{Class, CollectionName, Larder, Metric, Point, field};

use super::{assert_sound, collection, ids, json, point};
use crate::support::assert_refused;

#[tokio::test]
async fn vectors_that_cannot_be_compared_are_refused_and_nothing_of_their_batch_is_there() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 3, Metric::Cosine).await;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2e15] {
        assert!(Point::new("a", [0.0, bad, 1.0]).unwrap_err().to_string().contains("component 1"));
        assert_refused(notes.search([0.0, bad, 1.0]).await, Class::InvalidInput, &["component 1"]);
    }
    assert!(Point::new("a", vec![1.0; 1_000_000]).is_err());
    assert!(Point::new("a", []).is_err());
    let good = point("good", &[1.0, 0.0, 0.0]);
    for (bad, says) in [
        (point("bad", &[1.0, 2.0]), "2 dimensions, the collection 3"),
        (point("bad", &[1.0; 4]), "4 dimensions"),
        (point("bad", &[0.0, -0.0, 0.0]), "components are 0"),
        (point("good", &[1.0, 0.0, 1.0]), "stands twice"),
        (point("bad", &[1.0; 3]).with_metadata(json("[1]")), "not a JSON object"),
        (point("bad", &[1.0; 3]).with_metadata(json(r#"{"a": 1, "a": 2}"#)), "names a member twice"),
        (point("bad", &[1.0; 3]).with_text("x".repeat(2 << 20)), "too large"),
    ] {
        assert_refused(notes.upsert([good.clone(), bad]).await, Class::InvalidInput, &[says]);
    }
    assert_refused(notes.search([1.0, 2.0]).await, Class::InvalidInput, &["2 dimensions"]);
    assert_refused(notes.search([0.0; 3]).await, Class::InvalidInput, &["components are 0"]);
    assert_eq!(notes.count().await.unwrap(), 0);
    // Without an angle a vector of zeros is a vector like others.
    let flat = larder.vectors().collection("flat").dimensions(2).metric(Metric::L2).open().await.unwrap();
    flat.upsert([point("zero", &[0.0, 0.0])]).await.unwrap();
    assert_eq!(ids(&flat.search([0.0, 0.0]).await.unwrap()), ["zero"]);
    assert_sound(&larder).await;
}

#[tokio::test]
async fn empty_requests_and_edges_of_k_are_no_errors() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 2, Metric::Dot).await;
    assert_eq!(notes.upsert([]).await.unwrap().inserted, 0);
    assert_eq!(notes.delete([] as [&str; 0]).await.unwrap(), 0);
    assert_eq!(notes.search_many([] as [[f32; 2]; 0]).await.unwrap(), [[]; 0]);
    notes.upsert([point("a", &[1.0, 0.0])]).await.unwrap();
    assert_eq!(notes.search([1.0, 0.0]).k(0).await.unwrap(), []);
    assert_eq!(notes.search([1.0, 0.0]).k(10_000).await.unwrap().len(), 1);
    assert_eq!(notes.search([1.0, 0.0]).offset(1).await.unwrap(), []);
    assert_eq!(notes.search([1.0, 0.0]).include([] as [&str; 0]).await.unwrap(), []);
    assert_eq!(notes.search([1.0, 0.0]).exclude(["a"]).await.unwrap(), []);
    assert_eq!(notes.search([1.0, 0.0]).threshold(f32::INFINITY).await.unwrap(), []);
    assert_eq!(notes.search([1.0, 0.0]).text("no such word").await.unwrap().len(), 1);
    for (request, says) in [
        (notes.search([1.0, 0.0]).k(10_001), "search k"),
        (notes.search([1.0, 0.0]).offset(10_001), "search offset"),
        (notes.search([1.0, 0.0]).threshold(f32::NAN), "threshold"),
        (notes.search([1.0, 0.0]).diverse(f32::NAN, 10), "diversity"),
        (notes.search([1.0, 0.0]).diverse(1.5, 10), "diversity"),
        (notes.search([1.0, 0.0]).diverse(0.5, 10_000), "diversity"),
        (notes.search([1.0, 0.0]).diverse(0.5, 10).text("a"), "diversity"),
        (notes.search_text("x".repeat(5_000)), "too large"),
    ] {
        assert_refused(request.await, Class::InvalidInput, &[says]);
    }
    let neither = SearchPoints {
        collection: CollectionName::new("notes").unwrap(),
        vector: None,
        text: None,
        options: larder::protocol::vectors::SearchOptions::default(),
    };
    assert_refused(larder.ask(neither).await, Class::InvalidInput, &["neither a vector nor a text"]);
}

#[tokio::test]
async fn filters_on_missing_fields_and_mixed_types_have_one_meaning() {
    let larder = Larder::temporary().await.unwrap();
    let notes = collection(&larder, 1, Metric::Dot).await;
    notes
        .upsert([
            point("number", &[5.0]).with_metadata(json(r#"{"a": 1}"#)),
            point("text", &[4.0]).with_metadata(json(r#"{"a": "1"}"#)),
            point("null", &[3.0]).with_metadata(json(r#"{"a": null}"#)),
            point("empty", &[2.0]).with_metadata(json("{}")),
            point("none", &[1.0]),
        ])
        .await
        .unwrap();
    for (filter, expected) in [
        (field("a").eq(1), &["number"][..]),
        (field("a").ne(1), &["text", "null", "empty", "none"]),
        (field("a").gt(0), &["number"]),
        (field("a").gt("0"), &["text"]),
        (field("a").is_empty(), &["null", "empty", "none"]),
        (field("missing").eq(1), &[]),
    ] {
        assert_eq!(ids(&notes.search([1.0]).filter(filter.clone()).await.unwrap()), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn collections_have_sensible_dimensions_and_names() {
    let larder = Larder::temporary().await.unwrap();
    for dimensions in [0, 8_193, usize::MAX] {
        let opened = larder.vectors().collection("notes").dimensions(dimensions).open().await;
        assert_refused(opened, Class::InvalidInput, &["dimensions"]);
    }
    assert_refused(larder.vectors().collection("").dimensions(1).open().await, Class::InvalidInput, &["empty"]);
    let message = OpenCollection {
        collection: CollectionName::new("'; DROP TABLE point --").unwrap(),
        dimensions: 8_192,
        metric: Metric::L2,
    };
    larder.ask(message).await.unwrap();
    let large = larder.vectors().collection("'; DROP TABLE point --").open().await.unwrap();
    large.upsert([point("a", &[1.0; 8_192])]).await.unwrap();
    assert_eq!(large.search([1.0; 8_192]).await.unwrap()[0].score, 0.0);
}
