/*
 * What analysers see instead of uthash's macros: an entry goes into a table, comes out, or is found, by functions of
 * which they know nothing. The real macros are pointer arithmetic that they follow for minutes and then get wrong: they
 * believe that an entry taken out and freed is met again. Whether the tables are right is for ASan and valgrind to say.
 */
#ifndef MODEL_UTHASH_H
#define MODEL_UTHASH_H

#include_next <uthash.h>

void *model_added(void *head, void *entry);    /* the new head */
void *model_removed(void *head, void *entry);
void *model_found(void *head, const void *key, unsigned long len);
void *model_next(void *head, void *entry);
unsigned model_count(const void *head);

#undef HASH_ADD
#undef HASH_ADD_KEYPTR
#undef HASH_ADD_PTR
#undef HASH_ADD_STR
#undef HASH_CLEAR
#undef HASH_CNT
#undef HASH_COUNT
#undef HASH_DEL
#undef HASH_DELETE
#undef HASH_FIND
#undef HASH_FIND_PTR
#undef HASH_FIND_STR
#undef HASH_ITER
#define HASH_ADD(hh, head, field, len, e) ((head) = model_added(head, e))
#define HASH_ADD_KEYPTR(hh, head, key, len, e) ((head) = model_added(head, e))
#define HASH_ADD_PTR(head, field, e) ((head) = model_added(head, e))
#define HASH_ADD_STR(head, field, e) ((head) = model_added(head, e))
#define HASH_CLEAR(hh, head) ((head) = NULL)
#define HASH_CNT(hh, head) model_count(head)
#define HASH_COUNT(head) model_count(head)
#define HASH_DEL(head, e) ((head) = model_removed(head, e))
#define HASH_DELETE(hh, head, e) ((head) = model_removed(head, e))
#define HASH_FIND(hh, head, key, len, out) ((out) = model_found(head, key, len))
#define HASH_FIND_PTR(head, key, out) ((out) = model_found(head, key, sizeof(void *)))
#define HASH_FIND_STR(head, key, out) ((out) = model_found(head, key, strlen(key)))
#define HASH_ITER(hh, head, e, next) for ((e) = (head); (e) && ((next) = model_next(head, e), 1); (e) = (next))

#endif
