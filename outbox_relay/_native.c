/*
 * The two hot loops of the relay in C: a row becomes a record, records become a batch's bytes.
 *
 * Python has both too (relay/wire.py, brokers/record_batch.py) and is the specification. What is not
 * the usual case is not done here: the answer is None, and the caller does it in Python, with its errors.
 * Nothing here trusts a length that it has not read from the object itself.
 *
 * One stream and one buffer serve all calls: they need the GIL, which is held throughout.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

enum { MOST_COMPRESSED = 32 * 1024, MOST_INFLATED = 128 * 1024 };
enum { CODEC_RAW = 0, CODEC_ZLIB = 1 };

/* Fields of relay.ports.Row, of relay.wire._Kind and of relay.ports.Record. */
enum { ROW_ID, ROW_TOPIC, ROW_KEY, ROW_PAYLOAD, ROW_PAYLOAD_BYTES, ROW_CODEC, ROW_HEADERS,
       ROW_EVENT_ID, ROW_NAME, ROW_CONTENT_TYPE, ROW_CREATED, ROW_REQUEUED, ROW_LANE, ROW_FIELDS };
enum { KIND_NAME, KIND_CONTENT_TYPE, KIND_HEADERS, KIND_CODEC, KIND_SHARED, KIND_OWN, KIND_SIZE,
       KIND_FIELDS };
enum { REC_KEY, REC_VALUE, REC_TIMESTAMP, REC_EVENT_ID, REC_TIME, REC_SEQ, REC_SHARED, REC_OWN,
       REC_BYTES, REC_FIELDS };

enum { TIME_CHARS = 27, SECOND_CHARS = 19, UUID_CHARS = 36 };

static z_stream stream;
static int stream_is_ready = 0;
static unsigned char inflated[MOST_INFLATED];

/* The content of a zlib stream; NULL without an exception if it is large or not what it should be. */
static PyObject *
inflate_bytes(PyObject *payload, Py_ssize_t max_bytes)
{
    Py_ssize_t size = PyBytes_GET_SIZE(payload);
    if (size > MOST_COMPRESSED) {
        return NULL;
    }
    if (!stream_is_ready) {
        memset(&stream, 0, sizeof stream);
        if (inflateInit(&stream) != Z_OK) {
            return NULL;
        }
        stream_is_ready = 1;
    } else if (inflateReset(&stream) != Z_OK) {
        return NULL;
    }
    stream.next_in = (Bytef *)PyBytes_AS_STRING(payload);
    stream.avail_in = (uInt)size;
    stream.next_out = inflated;
    stream.avail_out = MOST_INFLATED;
    if (inflate(&stream, Z_FINISH) != Z_STREAM_END || stream.avail_in != 0) {
        return NULL;
    }
    Py_ssize_t length = MOST_INFLATED - (Py_ssize_t)stream.avail_out;
    if (length > max_bytes) {
        return NULL;
    }
    return PyBytes_FromStringAndSize((char *)inflated, length);
}

/* Whether two texts, or two None, are the same. */
static int
same_text(PyObject *one, PyObject *other)
{
    if (one == other) {
        return 1;
    }
    if (!PyUnicode_CheckExact(one) || !PyUnicode_CheckExact(other)) {
        return 0;
    }
    return PyUnicode_GET_LENGTH(one) == PyUnicode_GET_LENGTH(other)
        && PyUnicode_Compare(one, other) == 0;
}

/* A number of 64 bits that is not negative, or -1. */
static int64_t
natural(PyObject *number)
{
    int overflow = 0;
    if (!PyLong_Check(number)) {
        return -1;
    }
    long long found = PyLong_AsLongLongAndOverflow(number, &overflow);
    return overflow ? -1 : (found < 0 ? -1 : (int64_t)found);
}

static int64_t text_of_second = -1;
static char second_text[SECOND_CHARS + 32];

/* ISO 8601 to the microsecond, in UTC; NULL without an exception outside of the years that fit. */
static PyObject *
time_bytes(int64_t microseconds)
{
    int64_t second = microseconds / 1000000;
    if (second != text_of_second) {
        struct tm parts;
        time_t when = (time_t)second;
        if (second > INT64_C(253402300799) || gmtime_r(&when, &parts) == NULL) {
            return NULL;
        }
        snprintf(second_text, sizeof second_text, "%04d-%02d-%02dT%02d:%02d:%02d",
                 parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                 parts.tm_min, parts.tm_sec);
        text_of_second = second;
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, TIME_CHARS);
    if (made == NULL) {
        return NULL;
    }
    char *to = PyBytes_AS_STRING(made);
    memcpy(to, second_text, SECOND_CHARS);
    to[SECOND_CHARS] = '.';
    int64_t rest = microseconds % 1000000;
    for (int place = 6; place > 0; place--) {
        to[SECOND_CHARS + place] = (char)('0' + rest % 10);
        rest /= 10;
    }
    to[TIME_CHARS - 1] = 'Z';
    return made;
}

/* A UUID's 16 bytes as text. */
static PyObject *
uuid_bytes(PyObject *raw)
{
    static const char digits[] = "0123456789abcdef";
    PyObject *made = PyBytes_FromStringAndSize(NULL, UUID_CHARS);
    if (made == NULL) {
        return NULL;
    }
    const unsigned char *from = (const unsigned char *)PyBytes_AS_STRING(raw);
    char *to = PyBytes_AS_STRING(made);
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *to++ = '-';
        }
        *to++ = digits[from[i] >> 4];
        *to++ = digits[from[i] & 15];
    }
    return made;
}

static PyObject *
decimal_bytes(int64_t number)
{
    char text[24];
    char *at = text + sizeof text;
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    return PyBytes_FromStringAndSize(at, text + sizeof text - at);
}

/* The value of a row, a new reference; NULL without an exception for what Python shall look at. */
static PyObject *
value_of(PyObject *row, int64_t codec, Py_ssize_t max_bytes, int pass_through)
{
    PyObject *payload = PyTuple_GET_ITEM(row, ROW_PAYLOAD);
    if (!PyBytes_CheckExact(payload)) {
        return NULL;
    }
    if (codec == CODEC_RAW || (codec == CODEC_ZLIB && pass_through)) {
        return Py_NewRef(payload);
    }
    return codec == CODEC_ZLIB ? inflate_bytes(payload, max_bytes) : NULL;
}

static PyObject *
nothing_or_error(void)
{
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(record_doc,
"record(record_type, row, kind, max_bytes, pass_through)\n--\n\n"
"The record of a row of that kind, or None where Python must look.");

static PyObject *
record(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 5 || !PyType_Check(arguments[0])
        || !PyType_IsSubtype((PyTypeObject *)arguments[0], &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "record(record_type, row, kind, max_bytes, pass_through)");
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)arguments[0];
    PyObject *row = arguments[1], *kind = arguments[2];
    if (!PyTuple_Check(row) || PyTuple_GET_SIZE(row) != ROW_FIELDS
        || !PyTuple_Check(kind) || PyTuple_GET_SIZE(kind) != KIND_FIELDS) {
        Py_RETURN_NONE;
    }
    Py_ssize_t max_bytes = PyLong_AsSsize_t(arguments[3]);
    int pass_through = PyObject_IsTrue(arguments[4]);
    if ((max_bytes == -1 || pass_through == -1) && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *key = PyTuple_GET_ITEM(row, ROW_KEY);
    PyObject *event_id = PyTuple_GET_ITEM(row, ROW_EVENT_ID);
    int64_t id = natural(PyTuple_GET_ITEM(row, ROW_ID));
    int64_t codec = natural(PyTuple_GET_ITEM(row, ROW_CODEC));
    int64_t created = natural(PyTuple_GET_ITEM(row, ROW_CREATED));
    int64_t size = natural(PyTuple_GET_ITEM(kind, KIND_SIZE));
    if (id < 0 || codec < 0 || created < 0 || size < 0
        || natural(PyTuple_GET_ITEM(kind, KIND_CODEC)) != codec
        || PyTuple_GET_ITEM(row, ROW_REQUEUED) != Py_None
        || (key != Py_None && !PyBytes_CheckExact(key))
        || !PyBytes_CheckExact(event_id) || PyBytes_GET_SIZE(event_id) != 16
        || !same_text(PyTuple_GET_ITEM(row, ROW_NAME), PyTuple_GET_ITEM(kind, KIND_NAME))
        || !same_text(PyTuple_GET_ITEM(row, ROW_CONTENT_TYPE),
                      PyTuple_GET_ITEM(kind, KIND_CONTENT_TYPE))
        || !same_text(PyTuple_GET_ITEM(row, ROW_HEADERS), PyTuple_GET_ITEM(kind, KIND_HEADERS))) {
        return nothing_or_error();
    }
    PyObject *value = value_of(row, codec, max_bytes, pass_through);
    if (value == NULL) {
        return nothing_or_error();
    }
    PyObject *time = time_bytes(created);
    if (time == NULL) {
        Py_DECREF(value);
        return nothing_or_error();
    }
    size += PyBytes_GET_SIZE(value) + (key == Py_None ? 0 : PyBytes_GET_SIZE(key));
    PyObject *made = type->tp_alloc(type, REC_FIELDS);
    if (made == NULL) {
        Py_DECREF(value);
        Py_DECREF(time);
        return NULL;
    }
    PyTuple_SET_ITEM(made, REC_KEY, Py_NewRef(key));
    PyTuple_SET_ITEM(made, REC_VALUE, value);
    PyTuple_SET_ITEM(made, REC_TIMESTAMP, PyLong_FromLongLong(created / 1000));
    PyTuple_SET_ITEM(made, REC_EVENT_ID, uuid_bytes(event_id));
    PyTuple_SET_ITEM(made, REC_TIME, time);
    PyTuple_SET_ITEM(made, REC_SEQ, decimal_bytes(id));
    PyTuple_SET_ITEM(made, REC_SHARED, Py_NewRef(PyTuple_GET_ITEM(kind, KIND_SHARED)));
    PyTuple_SET_ITEM(made, REC_OWN, Py_NewRef(PyTuple_GET_ITEM(kind, KIND_OWN)));
    PyTuple_SET_ITEM(made, REC_BYTES, PyLong_FromLongLong(size));
    if (PyErr_Occurred()) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

/* Headers of a block as they stand in a record: those of the last block are kept, neighbours share. */
typedef struct {
    PyObject *block;  /* borrowed: the records hold it */
    PyObject *encoded;
    Py_ssize_t headers;
} Block;

static int
learn_block(Block *known, PyObject *block, PyObject *encode_block)
{
    if (known->block == block) {
        return 1;
    }
    Py_CLEAR(known->encoded);
    known->block = NULL;
    PyObject *headers = PyObject_GetAttrString(block, "headers");
    if (headers == NULL) {
        return 0;
    }
    known->headers = PyTuple_CheckExact(headers) ? PyTuple_GET_SIZE(headers) : -1;
    Py_DECREF(headers);
    known->encoded = PyObject_GetAttrString(block, "encoded");
    if (known->encoded != NULL && PyBytes_CheckExact(known->encoded)
        && PyBytes_GET_SIZE(known->encoded) == 0) {
        Py_DECREF(known->encoded);
        known->encoded = PyObject_CallOneArg(encode_block, block);
    }
    if (known->encoded == NULL || !PyBytes_CheckExact(known->encoded) || known->headers < 0) {
        Py_CLEAR(known->encoded);
        return 0;
    }
    known->block = block;
    return 1;
}

static char *
put_varint(char *to, int64_t number)
{
    uint64_t rest = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    while (rest > 127) {
        *to++ = (char)((rest & 127) | 128);
        rest >>= 7;
    }
    *to++ = (char)rest;
    return to;
}

static Py_ssize_t
varint_size(int64_t number)
{
    uint64_t rest = ((uint64_t)number << 1) ^ (uint64_t)(number >> 63);
    Py_ssize_t size = 1;
    while (rest > 127) {
        size++;
        rest >>= 7;
    }
    return size;
}

static char *
put_bytes(char *to, const char *from, Py_ssize_t size)
{
    memcpy(to, from, (size_t)size);
    return to + size;
}

/* A length and the bytes; the length -1 for None. */
static char *
put_sized(char *to, PyObject *bytes)
{
    if (bytes == Py_None) {
        return put_varint(to, -1);
    }
    to = put_varint(to, PyBytes_GET_SIZE(bytes));
    return put_bytes(to, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

static Py_ssize_t
sized_size(PyObject *bytes)
{
    if (bytes == Py_None) {
        return varint_size(-1);
    }
    return varint_size(PyBytes_GET_SIZE(bytes)) + PyBytes_GET_SIZE(bytes);
}

static int
is_bytes_or_none(PyObject *object)
{
    return object == Py_None || PyBytes_CheckExact(object);
}

static const char ID_NAME[] = "\x0a" "ce_id";
static const char TIME_NAME[] = "\x0e" "ce_time";
static const char SEQ_NAME[] = "\x14" "outbox-seq";
enum { NAMES_SIZE = sizeof ID_NAME - 1 + sizeof TIME_NAME - 1 + sizeof SEQ_NAME - 1 };

/* Whether all fields have the types that their names promise. */
static int
is_usual(PyObject *record)
{
    return PyTuple_Check(record) && PyTuple_GET_SIZE(record) == REC_FIELDS
        && is_bytes_or_none(PyTuple_GET_ITEM(record, REC_KEY))
        && is_bytes_or_none(PyTuple_GET_ITEM(record, REC_VALUE))
        && natural(PyTuple_GET_ITEM(record, REC_TIMESTAMP)) >= 0
        && PyBytes_CheckExact(PyTuple_GET_ITEM(record, REC_EVENT_ID))
        && PyBytes_CheckExact(PyTuple_GET_ITEM(record, REC_TIME))
        && PyBytes_CheckExact(PyTuple_GET_ITEM(record, REC_SEQ));
}

/* The bytes of a record after its length. */
static Py_ssize_t
body_size(PyObject *record, int64_t delta_ms, int64_t offset, const Block *shared, const Block *own)
{
    return 1 + varint_size(delta_ms) + varint_size(offset)
        + sized_size(PyTuple_GET_ITEM(record, REC_KEY))
        + sized_size(PyTuple_GET_ITEM(record, REC_VALUE))
        + varint_size(3 + shared->headers + own->headers) + NAMES_SIZE
        + sized_size(PyTuple_GET_ITEM(record, REC_EVENT_ID))
        + sized_size(PyTuple_GET_ITEM(record, REC_TIME))
        + sized_size(PyTuple_GET_ITEM(record, REC_SEQ))
        + PyBytes_GET_SIZE(shared->encoded) + PyBytes_GET_SIZE(own->encoded);
}

static char *
put_body(char *to, PyObject *record, int64_t delta_ms, int64_t offset, const Block *shared,
         const Block *own)
{
    *to++ = 0;
    to = put_varint(to, delta_ms);
    to = put_varint(to, offset);
    to = put_sized(to, PyTuple_GET_ITEM(record, REC_KEY));
    to = put_sized(to, PyTuple_GET_ITEM(record, REC_VALUE));
    to = put_varint(to, 3 + shared->headers + own->headers);
    to = put_bytes(to, ID_NAME, sizeof ID_NAME - 1);
    to = put_sized(to, PyTuple_GET_ITEM(record, REC_EVENT_ID));
    to = put_bytes(to, TIME_NAME, sizeof TIME_NAME - 1);
    to = put_sized(to, PyTuple_GET_ITEM(record, REC_TIME));
    to = put_bytes(to, SEQ_NAME, sizeof SEQ_NAME - 1);
    to = put_sized(to, PyTuple_GET_ITEM(record, REC_SEQ));
    to = put_bytes(to, PyBytes_AS_STRING(shared->encoded), PyBytes_GET_SIZE(shared->encoded));
    return put_bytes(to, PyBytes_AS_STRING(own->encoded), PyBytes_GET_SIZE(own->encoded));
}

/* Room for *more* bytes after *used*; 0 with an exception if there is no memory. */
static int
make_room(PyObject **buffer, Py_ssize_t used, Py_ssize_t more)
{
    Py_ssize_t size = PyBytes_GET_SIZE(*buffer);
    if (more <= size - used) {
        return 1;
    }
    if (more > PY_SSIZE_T_MAX / 4 || size > PY_SSIZE_T_MAX / 4) {
        PyErr_NoMemory();
        return 0;
    }
    return _PyBytes_Resize(buffer, 2 * size + more) == 0;
}

PyDoc_STRVAR(encode_doc,
"encode(records, encode_block)\n--\n\n"
"The records of one batch in record format v2, or None where Python must look.");

static PyObject *
encode(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "encode(records, encode_block)");
        return NULL;
    }
    PyObject *records = PySequence_Tuple(arguments[0]);
    if (records == NULL) {
        return NULL;
    }
    Block shared = {NULL, NULL, 0}, own = {NULL, NULL, 0};
    Py_ssize_t many = PyTuple_GET_SIZE(records), used = 0;
    int is_done = 0;
    int64_t first_ms = -1;
    PyObject *buffer = PyBytes_FromStringAndSize(NULL, 1024 * (many + 1));
    if (buffer == NULL) {
        goto end;
    }
    for (Py_ssize_t offset = 0; offset < many; offset++) {
        PyObject *one = PyTuple_GET_ITEM(records, offset);
        if (!is_usual(one)
            || !learn_block(&shared, PyTuple_GET_ITEM(one, REC_SHARED), arguments[1])
            || !learn_block(&own, PyTuple_GET_ITEM(one, REC_OWN), arguments[1])) {
            goto end;
        }
        int64_t ms = natural(PyTuple_GET_ITEM(one, REC_TIMESTAMP));
        if (offset == 0) {
            first_ms = ms;
        }
        Py_ssize_t size = body_size(one, ms - first_ms, offset, &shared, &own);
        if (!make_room(&buffer, used, size + 10)) {
            goto end;
        }
        char *start = PyBytes_AS_STRING(buffer) + used;
        char *to = put_varint(start, size);
        to = put_body(to, one, ms - first_ms, offset, &shared, &own);
        used += to - start;
    }
    is_done = 1;
end:
    Py_XDECREF(shared.encoded);
    Py_XDECREF(own.encoded);
    Py_DECREF(records);
    if (is_done && _PyBytes_Resize(&buffer, used) == 0) {
        return buffer;
    }
    Py_XDECREF(buffer);
    return nothing_or_error();
}

static PyMethodDef methods[] = {
    {"record", (PyCFunction)(void (*)(void))record, METH_FASTCALL, record_doc},
    {"encode", (PyCFunction)(void (*)(void))encode, METH_FASTCALL, encode_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "outbox_relay._native", "The relay's hot loops in C.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModule_Create(&module);
}
