//! `weir doctor` asks each language model something small, says how each did, and shows nobody's key.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use weir_tests::{Running, Weir};

const KEY: &str = "sk-51c0-never-to-be-seen";

/// An endpoint that lets nobody in and repeats what it was sent, once.
fn who_repeats_keys() -> (SocketAddr, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while !request.ends_with(b"}") {
            let read = stream.read(&mut part).unwrap();
            assert_ne!(read, 0, "it hung up before it had asked");
            request.extend_from_slice(&part[..read]);
        }
        let body = format!("{{\"error\": {{\"message\": \"no such key: {KEY}\"}}}}");
        let length = body.len();
        let head = format!(
            "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        String::from_utf8_lossy(&request).into_owned()
    });
    (address, answering)
}

#[test]
fn each_language_model_is_asked_and_no_key_is_shown() {
    let weir = Weir::new();
    let (address, answering) = who_repeats_keys();
    let url = format!("http://{address}/v1");
    weir.file(
        "weir.toml",
        format!(
            "[[llm.provider]]\nname = \"shut\"\nurl = \"{url}\"\nmodel = \"m\"\nkey_env = \"A_KEY\"\n\n\
             [[llm.provider]]\nname = \"nobody\"\nurl = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\nkey_env = \"A_KEY\"\n\n\
             [[llm.provider]]\nname = \"absent\"\nkind = \"local\"\nfile = \"no-such.gguf\"\n\n\
             [[llm.provider]]\nname = \"quotes\"\nkind = \"extractive\"\n"
        )
        .as_bytes(),
    );
    let mut command = weir.command(&["doctor", "--json"]);
    command.env("A_KEY", KEY);
    let ended = Running::start(command).wait();
    assert!(
        answering.join().unwrap().contains(KEY),
        "it was not sent to whom it belongs"
    );
    let shown = format!("{:?} {}", ended.lines, ended.errors);
    assert!(!shown.contains(KEY), "{shown}");
    let findings = ended.lines[0]["findings"].as_array().unwrap();
    let told: Vec<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding["what"] == "language model")
        .map(|finding| {
            (
                finding["state"].as_str().unwrap(),
                finding["detail"].as_str().unwrap(),
            )
        })
        .collect();
    for ((state, detail), (wanted, words)) in told.iter().zip([
        (
            "weak",
            "shut, m: lets nobody in with status 401: no such key: ***; check its url, model and key",
        ),
        ("weak", "nobody, m: cannot be reached"),
        ("missing", "the language model 'absent' cannot be set up"),
        ("well", "quotes the sentences of a text"),
    ]) {
        assert!(*state == wanted && detail.contains(words), "{state}: {detail}");
    }
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(ended.code, 1, "one cannot be set up");
}

#[test]
fn without_any_set_up_the_one_that_quotes_is_tried() {
    let weir = Weir::new();
    let ended = weir.run(&["doctor", "--json"]);
    let findings = ended.lines[0]["findings"].as_array().unwrap();
    let told = findings
        .iter()
        .find(|finding| finding["what"] == "language model")
        .unwrap();
    assert_eq!(told["state"], "well", "{told}");
    assert_eq!(ended.code, 0, "{}", ended.errors);
}
