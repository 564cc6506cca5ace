use super::*;

fn addresses(resolvers: &Resolvers) -> Vec<String> {
    resolvers
        .order(None)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[tokio::test]
async fn reads_what_the_c_libraries_read() {
    let text = b"search a.example\nnameserver 10.0.0.1\nnameserver fd00::1\noptions timeout:1 attempts:3\n\
        nameserver 10.0.0.2\nnameserver 10.0.0.3\n";
    let resolvers = Resolvers::parse(text, &[]);
    assert_eq!(addresses(&resolvers), ["10.0.0.1:53", "[fd00::1]:53", "10.0.0.2:53"]);
    assert_eq!(resolvers.patience(), Duration::from_millis(500));
    assert_eq!(resolvers.life(), Duration::from_secs(5));
    let (config, options) = resolvers.config();
    assert_eq!((config.name_servers().len(), options.attempts), (MAX_NAME_SERVERS, 3));
}

#[tokio::test]
async fn the_defaults_are_those_of_the_c_libraries() {
    let resolvers = Resolvers::parse(b"nameserver 10.0.0.1", &[]);
    assert_eq!(resolvers.patience(), Duration::from_secs(2));
    assert_eq!(resolvers.life(), Duration::from_secs(10));
    let slow = Resolvers::parse(b"nameserver 10.0.0.1\noptions timeout:30 attempts:5", &[]);
    assert_eq!((slow.patience(), slow.life()), (MAX_PATIENCE, MAX_LIFE));
    for none in ["", "nonsense", "options rotate"] {
        assert_eq!(addresses(&Resolvers::parse(none.as_bytes(), &[])), ["127.0.0.1:53"], "{none}");
    }
}

#[tokio::test]
async fn pinned_servers_take_the_place_of_the_files() {
    let pinned = ["10.9.9.9:5353".parse().unwrap()];
    let resolvers = Resolvers::parse(b"nameserver 10.0.0.1\noptions timeout:2", &pinned);
    assert_eq!(addresses(&resolvers), ["10.9.9.9:5353"]);
    assert_eq!(resolvers.patience(), Duration::from_secs(1));
    let (config, _) = resolvers.config();
    assert!(
        config.name_servers()[0]
            .connections
            .iter()
            .all(|c| c.port == 5353)
    );
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_asked_last_for_a_while() {
    let resolvers = Resolvers::parse(b"nameserver 10.0.0.1\nnameserver 10.0.0.2", &[]);
    let first: SocketAddr = "10.0.0.1:53".parse().unwrap();
    resolvers.suspect(first);
    assert_eq!(addresses(&resolvers), ["10.0.0.2:53", "10.0.0.1:53"]);
    tokio::time::advance(SUSPICION).await;
    assert_eq!(addresses(&resolvers), ["10.0.0.1:53", "10.0.0.2:53"]);
    resolvers.suspect(first);
    resolvers.trust(first);
    assert_eq!(addresses(&resolvers), ["10.0.0.1:53", "10.0.0.2:53"]);
}

#[tokio::test]
async fn whom_the_client_meant_comes_first_unless_suspect() {
    let resolvers = Resolvers::parse(b"nameserver 10.0.0.1\nnameserver 10.0.0.2", &[]);
    let second: SocketAddr = "10.0.0.2:53".parse().unwrap();
    assert_eq!(resolvers.order(Some(second.ip()))[0], second);
    resolvers.suspect(second);
    assert_eq!(resolvers.order(Some(second.ip()))[1], second);
}
