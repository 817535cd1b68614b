//! Versions of plugins, what they are granted, and secrets.

use serde_json::{Value, json};
use uuid::Uuid;
use weir::model::id::WorkflowId;
use weir::model::plugin::{PluginDigest, PluginRef, ToolLock};
use weir::store::{Deleted, NewPlugin, NewRevision, PluginVersion, Saved, SealedAt, VersionStatus, WorkflowChange};

use super::Database;

pub(super) async fn add(
    db: &Database,
    version: &str,
    n: u8,
    status: VersionStatus,
    rights: Option<Value>,
) -> PluginVersion {
    let new = NewPlugin {
        name: "p".to_owned(),
        version: version.to_owned(),
        digest: PluginDigest([n; 32]),
        component: vec![n],
        imports: Vec::new(),
        tools: vec![("tool".to_owned(), json!({"name": "tool"}))],
        request: Some(json!({"name": "p", "n": n})),
        status,
        rights,
        signature: None,
    };
    db.store.add_plugin(new).await.expect("written");
    find(db, &format!("p@{version}")).await
}

async fn find(db: &Database, plugin: &str) -> PluginVersion {
    let plugin = PluginRef::parse(plugin).expect("a plugin");
    db.store.plugin(&plugin).await.expect("readable").expect("there")
}

async fn meant(db: &Database) -> (String, VersionStatus) {
    let plugin = find(db, "p").await;
    (plugin.version, plugin.status)
}

pub(super) async fn a_name_means_its_active_version(db: Database) {
    let waiting = add(&db, "1", 1, VersionStatus::Waiting, None).await;
    assert_eq!(
        (meant(&db).await, waiting.request),
        (("1".to_owned(), VersionStatus::Waiting), Some(json!({"name": "p", "n": 1})))
    );
    assert!(db.store.plugins_with_tool("tool").await.expect("readable").is_empty());
    assert_eq!(db.store.plugin_grant(waiting.digest).await.expect("readable"), None);
    let rights = json!({"http": []});
    let grant = async |activates| {
        let granted = db.store.set_plugin_grant(waiting.digest, &rights, activates).await.expect("written");
        granted.expect("there")
    };
    assert_eq!(grant(false).await, [""; 0]);
    assert_eq!(meant(&db).await, ("1".to_owned(), VersionStatus::Waiting));
    assert_eq!(grant(true).await, ["p"]);
    assert_eq!(grant(true).await, [""; 0]);
    assert_eq!(meant(&db).await, ("1".to_owned(), VersionStatus::Active));
    let second = add(&db, "2", 2, VersionStatus::Inactive, Some(json!({"http": [], "settings": {}}))).await;
    assert_eq!((meant(&db).await.0, second.status), ("1".to_owned(), VersionStatus::Inactive));
    let granted = db.store.plugin_grant(second.digest).await.expect("readable").expect("there");
    assert_eq!(granted.rights, json!({"http": [], "settings": {}}));
    assert!(db.store.activate_plugin("p", second.id).await.expect("written"));
    // What is not there takes nothing from what is.
    assert!(!db.store.activate_plugin("p", Uuid::from_u128(999)).await.expect("answered"));
    assert_eq!(db.store.set_plugin_grant(PluginDigest([99; 32]), &rights, true).await.expect("answered"), None);
    assert_eq!(meant(&db).await, ("2".to_owned(), VersionStatus::Active));
    assert_eq!(find(&db, "p@1").await.status, VersionStatus::Inactive);
    let offering = db.store.plugins_with_tool("tool").await.expect("readable");
    assert_eq!(offering, [("p".to_owned(), second.digest)]);
    db.store.retire_plugin(second.id).await.expect("written");
    assert_eq!(find(&db, "p@2").await.status, VersionStatus::Retired);
    assert!(db.store.plugins_with_tool("tool").await.expect("readable").is_empty());
    db.store.revoke_plugin_grant(second.digest).await.expect("written");
    assert_eq!(db.store.plugin_grant(second.digest).await.expect("readable"), None);
}

pub(super) async fn what_a_revision_pins_is_not_deleted(db: Database) {
    let first = add(&db, "1", 1, VersionStatus::Active, Some(json!({}))).await;
    let second = add(&db, "2", 2, VersionStatus::Active, None).await;
    assert_eq!(db.store.delete_plugin(second.id).await.expect("answered"), Deleted::Active);
    let workflow = WorkflowId(Uuid::from_u128(70));
    let tool_lock: ToolLock = [("step".to_owned(), first.digest)].into_iter().collect();
    let revision = NewRevision { name: "w".to_owned(), definition: json!({"steps": []}), tool_lock };
    assert!(matches!(db.store.create_workflow(workflow, revision).await.expect("created"), Saved::Done(_)));
    let relocked: ToolLock = [("step".to_owned(), second.digest)].into_iter().collect();
    let relock = |revision| WorkflowChange::Relock { revision, tool_lock: relocked.clone() };
    let changed = there(db.store.change_workflow(workflow, relock(1)).await);
    assert_eq!((changed.revision.number, &changed.revision.tool_lock), (2, &relocked));
    let late = there(db.store.change_workflow(workflow, relock(1)).await);
    assert_eq!(late.revision.number, 2);
    // What is not there cannot be pinned, by whichever way.
    let lost: ToolLock = [("step".to_owned(), PluginDigest([99; 32]))].into_iter().collect();
    let new = NewRevision { name: "w".to_owned(), definition: json!({"steps": []}), tool_lock: lost.clone() };
    let other = WorkflowId(Uuid::from_u128(71));
    assert!(matches!(db.store.create_workflow(other, new).await.expect("answered"), Saved::PluginGone));
    assert!(db.store.workflow(other).await.expect("readable").is_none());
    for change in [
        WorkflowChange::Relock { revision: 2, tool_lock: lost.clone() },
        WorkflowChange::Revise(None, Some((json!({"steps": []}), lost))),
    ] {
        let refused = db.store.change_workflow(workflow, change).await.expect("answered");
        assert!(matches!(refused, Saved::PluginGone), "{refused:?}");
    }
    assert_eq!(db.store.workflow(workflow).await.expect("readable").expect("there").revision.number, 2);
    // The revision before is still there, and may be redriven.
    assert_eq!(db.store.delete_plugin(first.id).await.expect("answered"), Deleted::InUse(vec![(workflow, 1)]));
    let third = add(&db, "3", 3, VersionStatus::Inactive, Some(json!({}))).await;
    let uses = vec![(third.digest, "rule GET https://a/".to_owned(), 2), (PluginDigest([9; 32]), "x".to_owned(), 1)];
    db.store.record_plugin_uses(uses.clone()).await.expect("written");
    db.store.record_plugin_uses(uses).await.expect("written");
    let uses = db.store.plugin_uses(third.digest).await.expect("readable");
    assert_eq!(
        uses.iter().map(|used| (used.what.as_str(), used.count)).collect::<Vec<_>>(),
        [("rule GET https://a/", 4)]
    );
    for n in 0..4 {
        db.store.keep_plugin_calls(third.digest, vec![json!({"n": n})], 2).await.expect("written");
    }
    let calls = db.store.plugin_calls(third.digest).await.expect("readable");
    assert_eq!(calls, [json!({"n": 3}), json!({"n": 2})]);
    assert_eq!(db.store.delete_plugin(third.id).await.expect("answered"), Deleted::Gone);
    assert_eq!(db.store.component(third.digest).await.expect("readable"), None);
    assert!(db.store.plugin_uses(third.digest).await.expect("readable").is_empty());
    // Two versions of one component: it stays for as long as one of them.
    let again = add(&db, "4", 2, VersionStatus::Inactive, None).await;
    assert_eq!(db.store.delete_plugin(again.id).await.expect("answered"), Deleted::Gone);
    assert!(db.store.component(second.digest).await.expect("readable").is_some());
}

pub(super) async fn secrets_are_kept_by_name(db: Database) {
    let origins = vec!["https://a".to_owned()];
    let (secret, is_new) = db.store.put_secret("b", vec![1], &origins).await.expect("written");
    assert_eq!((secret.name.as_str(), secret.sealed, is_new), ("b", vec![1], true));
    db.clock.advance(std::time::Duration::from_secs(1));
    let (secret, is_new) = db.store.put_secret("b", vec![2], &[]).await.expect("written");
    assert_eq!((secret.sealed, secret.origins, is_new), (vec![2], Vec::<String>::new(), false));
    db.store.put_secret("a", vec![3], &origins).await.expect("written");
    let names = async |after: &str, most| {
        let secrets = db.store.secrets(after, most).await.expect("readable");
        secrets.into_iter().map(|secret| secret.name).collect::<Vec<_>>()
    };
    assert_eq!(
        (names("", 10).await, names("", 1).await, names("a", 1).await),
        (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned()], vec!["b".to_owned()])
    );
    assert_eq!(db.store.secret("a").await.expect("readable").map(|secret| secret.sealed), Some(vec![3]));
    let sealed = db.store.sealed().await.expect("readable");
    assert_eq!(
        sealed.last().map(|(at, sealed)| (at.clone(), sealed.clone())),
        Some((SealedAt::Secret("b".to_owned()), vec![2]))
    );
    let reseal =
        async |from: u8| db.store.reseal(SealedAt::Secret("b".to_owned()), vec![from], vec![9]).await.expect("written");
    assert_eq!((reseal(1).await, reseal(2).await, reseal(2).await), (false, true, false));
    assert!(db.store.delete_secret("a").await.expect("answered"));
    assert!(!db.store.delete_secret("a").await.expect("answered"));
    assert!(db.store.secret("a").await.expect("readable").is_none());
}

pub(super) async fn what_is_pinned_while_it_is_deleted_stays_or_is_not_pinned(db: Database) {
    for n in 1..=20_u8 {
        let version = add(&db, &n.to_string(), n, VersionStatus::Inactive, None).await;
        let tool_lock: ToolLock = [("step".to_owned(), version.digest)].into_iter().collect();
        let revision = NewRevision { name: "w".to_owned(), definition: json!({"steps": []}), tool_lock };
        let workflow = WorkflowId(Uuid::from_u128(100 + u128::from(n)));
        let (saved, deleted) =
            tokio::join!(db.store.create_workflow(workflow, revision), db.store.delete_plugin(version.id));
        match (saved.expect("answered"), deleted.expect("answered")) {
            (Saved::Done(_), Deleted::InUse(_)) | (Saved::PluginGone, Deleted::Gone) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The workflow that was saved.
pub(super) fn there(saved: Result<Saved, weir::store::StoreError>) -> weir::store::Workflow {
    match saved.expect("written") {
        Saved::Done(workflow) => *workflow,
        other => panic!("{other:?}"),
    }
}
