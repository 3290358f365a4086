//! A server that answers what a test tells it to, when the test tells it to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex as SyncMutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::Response,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names and values; without those of [`ok`] unless given.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// An answer as a healthy Consul gives it.
pub(super) fn ok(index: u64, body: &str) -> Reply {
    Reply {
        status: 200,
        headers: vec![
            ("X-Consul-Index", index.to_string()),
            ("X-Consul-KnownLeader", "true".into()),
            ("X-Consul-LastContact", "0".into()),
        ],
        body: body.into(),
    }
}

impl Reply {
    /// The same with another value of a header.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }
}

/// A body that lists one instance, told apart by its port.
pub(super) fn instance(port: u16) -> String {
    format!(
        r#"[{{"Node":{{"Node":"n","Address":"10.0.0.1"}},"Service":{{"ID":"s","Port":{port}}},"Checks":[]}}]"#
    )
}

/// A question as it came.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) service: String,
    pub(super) query: String,
    pub(super) token: String,
}

/// What the handler shares with the test.
struct Shared {
    asked: mpsc::UnboundedSender<Question>,
    replies: Mutex<mpsc::UnboundedReceiver<Reply>>,
    /// Given to every question at once, if there is one.
    always: SyncMutex<Option<Reply>>,
    now: AtomicUsize,
    peak: AtomicUsize,
}

/// The server. Ends with the value.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    questions: mpsc::UnboundedReceiver<Question>,
    replies: mpsc::UnboundedSender<Reply>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, questions) = mpsc::unbounded_channel();
        let (replies, scripted) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            asked,
            replies: Mutex::new(scripted),
            always: SyncMutex::default(),
            now: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            questions,
            replies,
            shared,
            task,
        }
    }

    /// The next question; it hangs until it is given an answer.
    pub(super) async fn question(&mut self) -> Question {
        timeout(Duration::from_secs(10), self.questions.recv())
            .await
            .expect("nothing is asked")
            .unwrap()
    }

    /// Answers the oldest question that hangs, or the next to come.
    pub(super) fn answer(&self, reply: Reply) {
        self.replies.send(reply).unwrap();
    }

    /// Answers all questions from now on at once.
    pub(super) fn always(&self, reply: Reply) {
        *self.shared.always.lock().unwrap() = Some(reply);
    }

    /// The most questions that were under way together.
    pub(super) fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }

    /// Questions under way now.
    pub(super) fn hanging(&self) -> usize {
        self.shared.now.load(Ordering::SeqCst)
    }
}

/// Counts a question for as long as it is under way.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let _counted = Counted::new(shared.clone());
    let path = request.uri().path();
    let token = request.headers().get("X-Consul-Token");
    let question = Question {
        service: path.rsplit('/').next().unwrap_or_default().into(),
        query: request.uri().query().unwrap_or_default().into(),
        token: token.map_or(String::new(), |token| token.to_str().unwrap().into()),
    };
    let _ = shared.asked.send(question);
    let always = shared.always.lock().unwrap().clone();
    let reply = match always {
        Some(reply) => {
            // Long enough for others to come in between.
            tokio::time::sleep(Duration::from_millis(5)).await;
            reply
        }
        None => shared.replies.lock().await.recv().await.unwrap(),
    };
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}
