//! From a question to its answer.

use hickory_proto::{
    op::{Edns, Header, HeaderCounts, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};

use super::{
    forward::Forwarder,
    zone::{Found, Lookup, Zone},
};

/// What UDP clients are told that they may send.
const PAYLOAD: u16 = 1232;

#[derive(Debug)]
pub(super) struct Handler {
    zone: Zone,
    forwarder: Forwarder,
}

/// The parts of an answer.
#[derive(Default)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl From<Message> for Reply {
    fn from(message: Message) -> Self {
        Self {
            code: message.metadata.response_code,
            authoritative: false,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
        }
    }
}

impl Handler {
    pub(super) fn new(zone: Zone, forwarder: Forwarder) -> Self {
        Self { zone, forwarder }
    }

    async fn answer(&self, request: &Request) -> Reply {
        if request.metadata.op_code != OpCode::Query
            || request.metadata.message_type != MessageType::Query
        {
            return Reply::code(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return Reply::code(ResponseCode::FormErr) };
        let name = info.query.name().to_string();
        let (name, kind) = (name.trim_end_matches('.'), info.query.query_type());
        if !self.zone.has_synced() {
            // Saying that a name does not exist would be believed.
            return Reply::code(ResponseCode::ServFail);
        }
        match self.zone.lookup(name, kind) {
            Lookup::Found(found) => self.found(found, kind).await,
            Lookup::NoName => Reply {
                code: ResponseCode::NXDomain,
                authoritative: true,
                authorities: vec![self.zone.soa()],
                ..Reply::default()
            },
            Lookup::NotOurs if self.forwarder.is_empty() => Reply::code(ResponseCode::Refused),
            Lookup::NotOurs => match self.forwarder.ask(request.as_slice()).await {
                Some(message) => message.into(),
                None => Reply::code(ResponseCode::ServFail),
            },
        }
    }

    async fn found(&self, found: Found, kind: RecordType) -> Reply {
        let Found { mut answers, additionals } = found;
        let alias = match answers.first().map(|record| &record.data) {
            Some(RData::CNAME(target)) if kind != RecordType::CNAME => Some(target.0.clone()),
            _ => None,
        };
        if let Some(target) = alias {
            answers.extend(self.follow(&target, kind).await);
        }
        let authorities = if answers.is_empty() { vec![self.zone.soa()] } else { Vec::new() };
        Reply {
            code: ResponseCode::NoError,
            authoritative: true,
            answers,
            authorities,
            additionals,
        }
    }

    /// What the target of an alias stands for, as far as can be told.
    async fn follow(&self, target: &Name, kind: RecordType) -> Vec<Record> {
        let name = target.to_string().to_ascii_lowercase();
        match self.zone.lookup(name.trim_end_matches('.'), kind) {
            // One step: an alias of an alias is the client's to follow.
            Lookup::Found(found) => found.answers,
            Lookup::NotOurs if !self.forwarder.is_empty() => {
                let mut question = Message::query();
                question.metadata.recursion_desired = true;
                question.queries.push(Query::query(target.clone(), kind));
                let Ok(question) = question.to_vec() else { return Vec::new() };
                let answer = self.forwarder.ask(&question).await;
                answer.map(|message| message.answers).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responses: R,
    ) -> ResponseInfo {
        let reply = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = !self.forwarder.is_empty();
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response =
            builder.build(metadata, &reply.answers, &reply.authorities, [], &reply.additionals);
        responses.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer could not be sent");
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}
