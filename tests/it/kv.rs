//! The key–value store through the public API.

use std::time::Duration;

use larder::{Class, Larder, field};

#[tokio::test]
async fn value_survives_close_and_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let larder = Larder::open(folder.path()).await.unwrap();
    let settings = larder.kv().collection::<String>("settings");
    settings.put("theme", &"dark".to_owned()).await.unwrap();
    assert_eq!(settings.get("theme").await.unwrap().as_deref(), Some("dark"));
    assert!(larder.close().await.is_clean());
    let larder = Larder::open(folder.path()).await.unwrap();
    assert_eq!(larder.kv().collection::<String>("settings").get("theme").await.unwrap().as_deref(), Some("dark"));
    larder.close().await;
}

#[tokio::test]
async fn closed_larder_refuses_with_a_typed_error() {
    let larder = Larder::temporary().await.unwrap();
    let other = larder.clone();
    larder.kv().bytes("a").put("k", "v").await.unwrap();
    larder.close().await;
    let error = other.kv().bytes("a").put("k", "v").await.unwrap_err();
    assert_eq!(error.class(), Class::ShuttingDown);
}

#[tokio::test]
async fn filters_find_json_values() {
    let larder = Larder::temporary().await.unwrap();
    let notes = larder.kv().collection::<serde_json::Value>("notes");
    notes.put("a", &serde_json::json!({"lang": "en", "year": 2020})).await.unwrap();
    notes.put("b", &serde_json::json!({"lang": "de", "year": 2024})).await.unwrap();
    larder.kv().bytes("notes").put("c", "not json").await.unwrap();
    let find = || notes.scan().filter(field("lang").ne("en")).page();
    assert_eq!(find().await.unwrap().len(), 1);
    assert!(larder.kv().declare_field(field("lang")).await.unwrap());
    assert!(!larder.kv().declare_field(field("lang")).await.unwrap());
    assert_eq!(find().await.unwrap().len(), 1);
}

#[tokio::test]
async fn expired_entry_is_hidden_before_it_is_swept() {
    let larder = Larder::temporary().await.unwrap();
    let kv = larder.kv().collection::<u32>("c");
    kv.put("k", &1).ttl(Duration::ZERO).await.unwrap();
    assert_eq!(kv.get("k").await.unwrap(), None);
    assert_eq!(kv.count(None).await.unwrap(), 0);
}
