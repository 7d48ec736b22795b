//! What the terminal shows at the start: a key, and what to try with it.

use super::{ProfileKind, Server, plan::described};

/// Shows `key`, its plan if it has one, and commands that the clients' profile lets work.
pub fn greet(server: &Server, key: &str) {
    let Server { address, scheme, profile, plan, .. } = server;
    let tls = *scheme == "https";
    // Nobody but us vouches for our certificate: curl is told not to ask.
    let (curl, ws) = if tls {
        (format!("curl -k https://{address}"), "wss")
    } else {
        (format!("curl http://{address}"), "ws")
    };
    let (what, body) = match profile {
        ProfileKind::Xai => ("", r#"{"expires_after": {"seconds": 600}}"#),
        _ => (
            ", with a voice that its holder cannot change",
            r#"{"expires_after": {"seconds": 600},
           "session": {"audio": {"output": {"voice": "marin"}}}}"#,
        ),
    };
    let url = format!("{ws}://{address}/v1/realtime?model=demo");
    let offer = match profile {
        ProfileKind::Decart => format!(r#""{url}&api_key=" + TOKEN"#),
        ProfileKind::Xai => format!("\"{url}\",\n      [\"xai-client-secret.\" + TOKEN]"),
        _ => {
            format!("\"{url}\",\n      [\"realtime\", \"openai-insecure-api-key.\" + TOKEN]")
        }
    };
    let plan = described(plan).map(|plan| format!("Its plan: {plan}.\n\n")).unwrap_or_default();
    println!(
        r"
A secret key, shown this once and good for 30 days; it belongs on a server:

    {key}

{plan}Mint a short-lived token{what}:

    {curl}/v1/realtime/client_secrets \
      -H 'Authorization: Bearer {key}' \
      -d '{body}'
"
    );
    if let ProfileKind::Svara = profile {
        println!("Svara's clients send it in a header, which no browser can.\n");
    } else {
        println!(
            r"Connect with it, for instance in the console of a browser:

    const socket = new WebSocket({offer});
    socket.onmessage = event => console.log(event.data);
    socket.onclose = event => console.log(event.code, event.reason);
"
        );
    }
    if tls {
        println!("Before that, open https://{address}/ there and accept its certificate.\n");
    }
}
