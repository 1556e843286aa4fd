//! What components remember: changes are made together or not at all, within the limits.

use weir_core::TenantId;
use weir_core::ports::PolicyState;
use weir_core::state::{MAX_KEY_BYTES, MAX_KEYS, MAX_VALUE_BYTES, StateChange};

/// Checks a state in which nothing is set; panics where it does not do as the port says. It need not tell tenants apart.
pub async fn check_policy_state(state: &dyn PolicyState) {
    let t = TenantId::single();
    let apply = async |changes: Vec<StateChange>| state.apply(&t, "p", changes).await;
    let get = async |key: &str| state.get(&t, "p", key).await.unwrap();
    assert_eq!(get("a").await, None);

    apply(vec![
        set("a", 1),
        set("b", 2),
        set("a", 3),
        delete("b"),
        delete("never set"),
    ])
    .await
    .unwrap();
    assert_eq!(
        get("a").await,
        Some(vec![7; 3]),
        "the last change of a key counts"
    );
    assert_eq!(get("b").await, None);
    let sizes = [("a".to_owned(), 3)].into_iter().collect();
    assert_eq!(state.sizes(&t, "p").await.unwrap(), sizes);

    let values: Vec<StateChange> = (0..15).map(|n| set(&n.to_string(), MAX_VALUE_BYTES)).collect();
    apply(values).await.unwrap();
    for beyond in [
        set("big", MAX_VALUE_BYTES),
        set("big", MAX_VALUE_BYTES + 1),
        set(&"k".repeat(MAX_KEY_BYTES + 1), 0),
    ] {
        let refused = apply(vec![
            set("small", 1),
            delete("0"),
            set("1", MAX_VALUE_BYTES),
            set("0", MAX_VALUE_BYTES),
            beyond,
        ])
        .await;
        assert_eq!(refused.unwrap_err().kind, "exhausted");
        assert_eq!(get("small").await, None, "none of the changes is made");
        assert_eq!(get("0").await.map(|value| value.len()), Some(MAX_VALUE_BYTES));
    }
    // What the same changes forget makes room for what they set.
    apply(vec![delete("0"), set("big", MAX_VALUE_BYTES)])
        .await
        .unwrap();

    let forget = (1..15).map(|n| delete(&n.to_string())).collect();
    apply(forget).await.unwrap();
    let keys: Vec<StateChange> = (0..MAX_KEYS - 2).map(|n| set(&format!("k{n}"), 0)).collect();
    apply(keys).await.unwrap();
    assert_eq!(
        apply(vec![set("one more", 0)]).await.unwrap_err().kind,
        "exhausted"
    );
    apply(vec![set("k7", 1)]).await.unwrap();
}

fn set(key: &str, bytes: usize) -> StateChange {
    StateChange {
        key: key.into(),
        value: Some(vec![7; bytes]),
    }
}

fn delete(key: &str) -> StateChange {
    StateChange {
        key: key.into(),
        value: None,
    }
}
