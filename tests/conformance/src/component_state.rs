//! Conformance checks of component state: changes are applied together or not at all, and only within the limits.

use weir_core::TenantId;
use weir_core::component_state_limits::{MAX_KEY_BYTES, MAX_KEYS, MAX_VALUE_BYTES, StateChange};
use weir_core::ports::ComponentStateStore;

/// Checks an empty state store. Panics if the store breaks the contract of its port. Isolation of tenants is not checked.
pub async fn check_component_state(state: &dyn ComponentStateStore) {
    let t = TenantId::default_tenant();
    let apply = async |changes: Vec<StateChange>| state.apply_component_state_changes(&t, "p", changes).await;
    let get = async |key: &str| state.get_component_state_value(&t, "p", key).await.unwrap();
    assert_eq!(get("a").await, None);

    apply(vec![
        set_key("a", 1),
        set_key("b", 2),
        set_key("a", 3),
        delete_key("b"),
        delete_key("never set"),
    ])
    .await
    .unwrap();
    assert_eq!(get("a").await, Some(vec![7; 3]), "the last change of a key wins");
    assert_eq!(get("b").await, None);
    let sizes = [("a".to_owned(), 3)].into_iter().collect();
    assert_eq!(
        state.list_component_state_value_sizes(&t, "p").await.unwrap(),
        sizes
    );

    let values: Vec<StateChange> = (0..15)
        .map(|n| set_key(&n.to_string(), MAX_VALUE_BYTES))
        .collect();
    apply(values).await.unwrap();
    for beyond in [
        set_key("big", MAX_VALUE_BYTES),
        set_key("big", MAX_VALUE_BYTES + 1),
        set_key(&"k".repeat(MAX_KEY_BYTES + 1), 0),
    ] {
        let refused = apply(vec![
            set_key("small", 1),
            delete_key("0"),
            set_key("1", MAX_VALUE_BYTES),
            set_key("0", MAX_VALUE_BYTES),
            beyond,
        ])
        .await;
        assert_eq!(refused.unwrap_err().kind, "exhausted");
        assert_eq!(get("small").await, None, "none of the changes is applied");
        assert_eq!(get("0").await.map(|value| value.len()), Some(MAX_VALUE_BYTES));
    }
    // A deletion frees space for values that the same changes set.
    apply(vec![delete_key("0"), set_key("big", MAX_VALUE_BYTES)])
        .await
        .unwrap();

    let deletions = (1..15).map(|n| delete_key(&n.to_string())).collect();
    apply(deletions).await.unwrap();
    let keys: Vec<StateChange> = (0..MAX_KEYS - 2).map(|n| set_key(&format!("k{n}"), 0)).collect();
    apply(keys).await.unwrap();
    assert_eq!(
        apply(vec![set_key("one more", 0)]).await.unwrap_err().kind,
        "exhausted"
    );
    apply(vec![set_key("k7", 1)]).await.unwrap();
}

fn set_key(key: &str, bytes: usize) -> StateChange {
    StateChange {
        key: key.into(),
        value: Some(vec![7; bytes]),
    }
}

fn delete_key(key: &str) -> StateChange {
    StateChange {
        key: key.into(),
        value: None,
    }
}

#[cfg(test)]
mod tests {
    use weir_core::memory_component_state::MemoryComponentState;

    #[tokio::test]
    async fn memory_component_state_passes_conformance_checks() {
        super::check_component_state(&MemoryComponentState::default()).await;
    }
}
