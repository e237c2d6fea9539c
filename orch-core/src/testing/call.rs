//! What a call is about, for whoever decides what becomes of it.

use std::borrow::Cow;

use crate::{
    client::{Read, Write},
    resource::Target,
};

/// What a call asks for, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// One object.
    Get,
    /// A collection.
    List,
    /// The changes of a collection.
    Watch,
    /// A new object, or a post to a subresource such as `binding` or `eviction`.
    Create,
    /// The replacement of an object.
    Update,
    /// A patch of whatever kind.
    Patch,
    /// The deletion of one object.
    Delete,
    /// The deletion of what a list selects.
    DeleteCollection,
}

const VERBS: [(Verb, &str); 8] = [
    (Verb::Get, "get"),
    (Verb::List, "list"),
    (Verb::Watch, "watch"),
    (Verb::Create, "create"),
    (Verb::Update, "update"),
    (Verb::Patch, "patch"),
    (Verb::Delete, "delete"),
    (Verb::DeleteCollection, "deletecollection"),
];

impl Verb {
    /// The verb that the API calls so.
    pub fn named(name: &str) -> Option<Self> {
        VERBS.iter().find(|(_, of)| *of == name).map(|(verb, _)| *verb)
    }

    /// What the API calls it.
    pub fn as_str(self) -> &'static str {
        VERBS.iter().find(|(of, _)| *of == self).map_or("", |(_, name)| name)
    }

    /// Whether it changes something.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// What is about to happen, for a rule to decide on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call<'a> {
    /// What is asked for.
    pub verb: Verb,
    /// Whether this is not the call itself, but the delivery of an event of a watch.
    pub is_event: bool,
    /// The API group; empty for the core group.
    pub group: Cow<'a, str>,
    /// The plural name of the resource.
    pub resource: Cow<'a, str>,
    /// The subresource; empty if it is none.
    pub subresource: Cow<'a, str>,
    /// The namespace; empty if it is about none, or about all.
    pub namespace: Cow<'a, str>,
    /// The object's name; empty for collections, and for what is created under a generated name.
    pub name: Cow<'a, str>,
}

impl<'a> Call<'a> {
    /// A call about a resource as a whole: the other fields are for the caller to set.
    pub fn new(
        verb: Verb,
        group: impl Into<Cow<'a, str>>,
        plural: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self {
            verb,
            is_event: false,
            group: group.into(),
            resource: plural.into(),
            subresource: Cow::default(),
            namespace: Cow::default(),
            name: Cow::default(),
        }
    }

    fn on(verb: Verb, target: &'a Target) -> Self {
        Self {
            subresource: Cow::Borrowed(target.subresource.as_deref().unwrap_or_default()),
            namespace: Cow::Borrowed(target.namespace.as_deref().unwrap_or_default()),
            name: Cow::Borrowed(target.name.as_deref().unwrap_or_default()),
            ..Self::new(verb, &*target.resource.group, &*target.resource.plural)
        }
    }

    /// A read.
    pub fn read(read: &'a Read) -> Self {
        match read {
            Read::Get(target) => Self::on(Verb::Get, target),
            Read::List(target, _) => Self::on(Verb::List, target),
        }
    }

    /// A write.
    pub fn write(write: &'a Write) -> Self {
        let verb = match write {
            Write::Create(..) => Verb::Create,
            Write::Update(..) => Verb::Update,
            Write::Patch(..) => Verb::Patch,
            Write::Delete(..) => Verb::Delete,
            Write::DeleteCollection(..) => Verb::DeleteCollection,
        };
        let mut call = Self::on(verb, write.target());
        if let Write::Create(target, body, _) = write
            && target.name.is_none()
        {
            let name = body.pointer("/metadata/name").and_then(|name| name.as_str());
            call.name = Cow::Borrowed(name.unwrap_or_default());
        }
        call
    }

    /// The opening of a watch.
    pub fn watch(target: &'a Target) -> Self {
        Self::on(Verb::Watch, target)
    }

    /// The delivery of one event of the watch that this is.
    #[must_use]
    pub fn event(self) -> Self {
        Self { is_event: true, ..self }
    }

    /// The same, without borrowing.
    pub fn into_owned(self) -> Call<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Call {
            verb: self.verb,
            is_event: self.is_event,
            group: owned(self.group),
            resource: owned(self.resource),
            subresource: owned(self.subresource),
            namespace: owned(self.namespace),
            name: owned(self.name),
        }
    }
}
