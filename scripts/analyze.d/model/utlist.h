/* As model/uthash.h: the lists of utlist, put together and taken apart by functions that analysers cannot see into. */
#ifndef MODEL_UTLIST_H
#define MODEL_UTLIST_H

#include_next <utlist.h>

void *model_appended(void *head, void *entry); /* the new head */
void *model_unlinked(void *head, void *entry);

#undef DL_APPEND
#undef DL_DELETE
#undef DL_FOREACH
#undef DL_FOREACH_SAFE
#undef LL_APPEND
#undef LL_DELETE
#undef LL_FOREACH
#undef LL_FOREACH_SAFE
#undef LL_PREPEND
#define DL_APPEND(head, e) ((head) = model_appended(head, e))
#define DL_DELETE(head, e) ((head) = model_unlinked(head, e))
#define DL_FOREACH(head, e) for ((e) = (head); (e); (e) = (e)->next)
#define DL_FOREACH_SAFE(head, e, after) for ((e) = (head); (e) && ((after) = (e)->next, 1); (e) = (after))
#define LL_APPEND DL_APPEND
#define LL_DELETE DL_DELETE
#define LL_FOREACH DL_FOREACH
#define LL_FOREACH_SAFE DL_FOREACH_SAFE
#define LL_PREPEND DL_APPEND

#endif
