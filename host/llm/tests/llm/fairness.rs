//! Tenants side by side.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::{Duration, Instant, sleep, timeout};
use weir_core::language::{LanguageError, LanguageModel, Question, QuestionKind};
use weir_llm::{Router, RouterConfig};

use crate::fakes::{Fake, account, question, terms};

fn of(tenant: &str, weight: f64, text: String) -> Question {
    Question {
        account: account(tenant, weight),
        ..question(text)
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_little_does_not_wait_behind_who_asks_much() {
    let fake = Fake::steady("only", 1.0);
    let router = Router::new(vec![fake.member(terms(4))], RouterConfig::default());
    let crowd = join_all((0..400).map(|i| router.ask(of("crowd", 1.0, format!("crowd {i}")))));
    let few = async {
        sleep(Duration::from_secs(20)).await;
        let began = Instant::now();
        let _ = join_all((0..8).map(|i| router.ask(of("few", 1.0, format!("few {i}"))))).await;
        began.elapsed().as_secs()
    };
    let (_, waited) = tokio::join!(crowd, few);
    assert!(waited <= 5, "8 questions at half of 4 calls: {waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_page_does_not_wait_behind_its_tenants_other_questions() {
    let fake = Fake::steady("only", 1.0);
    let router = Router::new(vec![fake.member(terms(4))], RouterConfig::default());
    let book = join_all((0..400).map(|i| router.ask(of("one", 1.0, format!("chapter {i}")))));
    let pages = async {
        sleep(Duration::from_millis(20_500)).await;
        let began = Instant::now();
        let page = |i| Question {
            kind: QuestionKind::Page,
            ..of("one", 1.0, format!("page {i}"))
        };
        let _ = join_all((0..8).map(|i| router.ask(page(i)))).await;
        began.elapsed()
    };
    let (_, waited) = tokio::join!(book, pages);
    assert_eq!(
        waited,
        Duration::from_millis(2500),
        "8 pages, 4 calls, after those under way"
    );
}

#[tokio::test(start_paused = true)]
async fn weights_share_what_is_busy() {
    let fake = Fake::steady("only", 1.0);
    let router = Router::new(vec![fake.member(terms(4))], RouterConfig::default());
    let light = join_all((0..400).map(|i| router.ask(of("light", 1.0, format!("light {i}")))));
    let heavy = join_all((0..400).map(|i| router.ask(of("heavy", 3.0, format!("heavy {i}")))));
    let both = async { tokio::join!(light, heavy) };
    let _ = timeout(Duration::from_millis(60_500), both).await;
    let calls = fake.calls();
    let heavy = calls.iter().filter(|(_, text)| text.starts_with("heavy")).count();
    let share = heavy as f64 / calls.len() as f64;
    assert!((share - 0.75).abs() < 0.03, "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_full_for_its_tenant_alone() {
    let fake = Fake::steady("only", 1.0);
    let config = RouterConfig {
        queue: 10,
        slow_at: 8,
        ..RouterConfig::default()
    };
    let router = Router::new(vec![fake.member(terms(1))], config);
    let crowd = join_all((0..20).map(|i| router.ask(of("crowd", 1.0, format!("{i}")))));
    let other = async {
        tokio::task::yield_now().await;
        router.ask(of("other", 1.0, "x".into())).await
    };
    let (crowd, other) = tokio::join!(crowd, other);
    let full = crowd
        .iter()
        .filter(|r| matches!(r, Err(LanguageError::Full { .. })))
        .count();
    assert!(
        (9..=10).contains(&full),
        "{full} of 20 with room for 10 and one call"
    );
    assert!(other.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_never_fills_the_queue() {
    let fake = Fake::steady("only", 1.0);
    let config = RouterConfig {
        queue: 10,
        slow_at: 8,
        ..RouterConfig::default()
    };
    let router = Arc::new(Router::new(vec![fake.member(terms(2))], config));
    let tenant = account("one", 1.0).tenant;
    let (mut asked, mut most) = (Vec::new(), 0);
    for i in 0..100 {
        router.room(&tenant).await;
        let router = Arc::clone(&router);
        let asker = Arc::clone(&router);
        asked.push(tokio::spawn(
            async move { asker.ask(question(format!("{i}"))).await },
        ));
        tokio::task::yield_now().await;
        most = most.max(router.stats().waiting);
    }
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(most, 8);
}
